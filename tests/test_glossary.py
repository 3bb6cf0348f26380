"""The glossary has the terms that the chapters define in bold, in order, each in a sentence."""

import re
from collections import Counter
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]-*.md"))
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^(\w[^\n]*)\n    ([^\n]+)$", GLOSSARY, re.MULTILINE))
SAID = {
    "clipped": "clipping",
    "copies": "copy",
    "explodes": "exploding gradient",
    "patches": "patch",
    "vanishes": "vanishing gradient",
}
NO_TERMS = {"one per input", "one for all", "as many as it takes"}  # the first words of a list


def bold(text: str) -> list[str]:
    """What stands in bold in a chapter's prose, in the form that the glossary has."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?<!\*)\*\*([^*\n]+)\*\*(?!\*)", prose)
    words = [SAID.get(word.lower(), word.lower()) for word in found]
    return [word for word in words if word not in NO_TERMS]


def test_bold_words_are_found():
    text = (
        "A **batch** of *x*, **Clipped**.\n```{code-cell}\n2 ** 3 ** 5\n```\n**One for all** 2**3"
    )
    assert bold(text) == ["batch", "clipping"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_term_in_bold_has_its_entry(path):
    terms = {term.lower() for term in ENTRIES}
    found = bold(path.read_text(encoding="utf-8"))
    assert found
    missing = {word for word in found if not {word, f"{word}s", word.rstrip("s")} & terms}
    assert not missing


def test_a_term_is_defined_once():
    count = Counter(word for path in CHAPTERS for word in bold(path.read_text(encoding="utf-8")))
    assert [word for word, times in count.items() if times > 1] == []


def test_every_entry_is_a_term_of_some_chapter():
    text = "\n".join(path.read_text(encoding="utf-8").lower() for path in CHAPTERS)
    absent = {term for term in ENTRIES if term.lower() not in text}
    assert absent <= {"exploding gradient", "vanishing gradient"}  # there it is a verb


def test_entries_stand_in_order_and_each_is_a_sentence():
    terms = [term.lower() for term in ENTRIES]
    assert len(terms) > 90
    assert terms == sorted(terms)
    for term, text in ENTRIES.items():
        assert text.endswith((".", "?")), term
        assert len(text.split()) >= 5, term
