"""English news: 300 short documents of about 60,000 words.

Headline stories that the Australian Broadcasting Corporation sent by mail.

Source: the background corpus of Lee, Pincombe and Welsh, "An empirical evaluation of models of text
document similarity", Proceedings of the 27th Annual Conference of the Cognitive Science Society,
2005; the copy read here comes inside the package `gensim`, https://pypi.org/project/gensim, none of
whose code is run.
"""

import re

from transformer_lit.data._packages import data_file

_MARKUP = re.compile(r"</?\w+>")  # a few words are set in italics: <i>...</i>
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")


def load() -> list[str]:
    """Return the documents, in the order of the file.

    Raises:
        ImportError: if gensim is not installed.
    """
    text = data_file("gensim", "test", "test_data", "lee_background.cor").read_text("utf-8")
    return [_MARKUP.sub("", line) for line in text.splitlines() if line.strip()]


def words(document: str) -> list[str]:
    """Split a document into its words and numbers, in lower case, without punctuation.

    An apostrophe inside a word is part of it (*don't*); a hyphen separates words.
    """
    return _WORD.findall(document.lower())
