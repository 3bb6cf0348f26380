"""Numbers in words, English, German and French, divided into those to learn and those to test.

Source: the rules in the package `num2words`, https://pypi.org/project/num2words, under the LGPL.
The words are made by its code; nothing is read from a file.

A number is a list of pieces, the words that all numbers below a million are put together from:
*zweiundvierzig* is zwei und vierzig, *quatre-vingt-dix* quatre vingt dix.
"""

import re
from functools import cache

from transformer_lit.data._packages import INSTALL, check_part

PARTS = ("train", "test")
LANGUAGES = {"english": "en", "german": "de", "french": "fr"}
LIMIT = 1_000_000


def numbers(part: str, low: int, high: int) -> list[int]:
    """Return the numbers of a part from ``low`` up to, not including, ``high``.

    Multiples of seven test, all others train: no word is missing from either part.

    Raises:
        ValueError: if there is no such part, or not 1 <= low < high <= LIMIT.
    """
    check_part(part, PARTS)
    if not 1 <= low < high <= LIMIT:
        raise ValueError(f"1 <= low < high <= {LIMIT} must hold, got {low} and {high}")
    return [number for number in range(low, high) if (number % 7 == 0) == (part == "test")]


def in_words(number: int, language: str) -> list[str]:
    """Return the pieces of a number, in the order of the language.

    Raises:
        ValueError: if the language is none of ``LANGUAGES``, or the number not in 1 .. LIMIT - 1.
        ImportError: if num2words is not installed.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no language {language!r}: expected one of {', '.join(LANGUAGES)}")
    if not 1 <= number < LIMIT or number % 1:
        raise ValueError(f"the number must be whole and lie in 1 .. {LIMIT - 1}, got {number}")
    text = _num2words()(number, lang=LANGUAGES[language])
    return _german_pieces().findall(text) if language == "german" else re.findall(r"\w+", text)


def _num2words():
    try:
        from num2words import num2words
    except ImportError as error:
        raise ImportError(f"number words are made by the package num2words: {INSTALL}") from error
    return num2words


@cache
def _german_pieces() -> re.Pattern:
    # German writes a number as one word. Longer pieces first: "dreizehn" is not "drei" and "zehn".
    simple = [_num2words()(number, lang="de") for number in [*range(1, 20), *range(20, 100, 10)]]
    pieces = sorted([*simple, "ein", "und", "hundert", "tausend"], key=len, reverse=True)
    return re.compile("|".join(pieces))
