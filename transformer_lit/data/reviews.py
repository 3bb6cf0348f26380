"""Short movie reviews: 200 snippets, each a sentence or two, half of them favourable.

The snippets are in lower case, with spaces around words and punctuation. The opinion is that of the
whole review a snippet was cut from, found automatically. One snippet is in Spanish.

Source: a sample of the sentence polarity data of Pang and Lee, "Seeing stars: exploiting class
relationships for sentiment categorization with respect to rating scales", Proceedings of the 43rd
Annual Meeting of the Association for Computational Linguistics, 2005, pages 115-124,
https://aclanthology.org/P05-1015. NLTK, which distributes all of it, names CC BY 4.0 as its
licence. The copy read here comes inside the package `gensim`, https://pypi.org/project/gensim, none
of whose code is run.
"""

from functools import cache

import numpy as np
from jaxtyping import Int64

from transformer_lit.data._packages import check_part, data_file

PARTS = ("a", "b", "c", "d", "e")
OPINIONS = ("negative", "positive")
_LABELS = {"__label__neg": 0, "__label__pos": 1}


def load(part: str) -> tuple[list[str], Int64[np.ndarray, " snippets"]]:
    """Return the snippets of a part and their opinions, 0 negative and 1 positive.

    There are five parts of 20 negative and 20 positive snippets each. 40 snippets are too few to
    measure on: let each part be the test in turn, and learn from the other four.

    Raises:
        ValueError: if there is no such part.
        ImportError: if gensim is not installed.
    """
    check_part(part, PARTS)
    rows = _rows()[PARTS.index(part) :: len(PARTS)]
    return [text for text, _ in rows], np.array([opinion for _, opinion in rows], dtype=np.int64)


def words(snippet: str) -> list[str]:
    """Split a snippet into its words and punctuation marks."""
    return snippet.split()


@cache
def _rows() -> tuple[tuple[str, int], ...]:
    # A dash and accents are single bytes of the encoding that Windows used in Western Europe.
    path = data_file("gensim", "test", "test_data", "pang_lee_polarity.cor")
    lines = (line.split(maxsplit=1) for line in path.read_text("cp1252").splitlines())
    return tuple((text.strip(), _LABELS[label]) for label, text in lines)
