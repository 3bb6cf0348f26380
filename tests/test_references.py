"""The bibliography: what is cited is there and complete, and nothing is there that is not cited."""

import re
from collections import Counter
from pathlib import Path

import pytest
from pybtex.database import parse_file, parse_string

ROOT = Path(__file__).parents[1]
FILE = ROOT / "book" / "references.bib"
ENTRIES = parse_file(str(FILE)).entries
PAGES = [ROOT / "index.md", *sorted((ROOT / "book").glob("*.md"))]
VENUES = ("journal", "booktitle", "howpublished", "publisher", "school")


def cited(text: str) -> list[str]:
    """The keys that a page cites."""
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
    return [key.strip() for keys in roles for key in keys.split(",")]


def lacks(entry) -> list[str]:
    """What a reader would miss in an entry to find the work."""
    fields, missing = entry.fields, []
    if not entry.persons.get("author"):
        missing.append("author")
    if not re.fullmatch(r"(1[89]|20)\d\d", fields.get("year", "")):
        missing.append("year")
    if len(fields.get("title", "").split()) < 2:
        missing.append("title")
    if not any(fields.get(name, "").strip() for name in VENUES):
        missing.append("venue")
    if not re.fullmatch(r"https?://[\w.-]+/\S+", fields.get("url", "")):
        missing.append("link")
    return missing


def test_keys_are_found_in_every_form_of_citation():
    text = "As {cite:t}`one2000a` and {cite:p}`two2001b, three2002c` say; {cite}`four2003d`."
    assert cited(text) == ["one2000a", "two2001b", "three2002c", "four2003d"]


def test_what_is_missing_would_be_seen():
    bare = parse_string("@misc{x, note = {nothing}}", "bibtex").entries["x"]
    assert lacks(bare) == ["author", "year", "title", "venue", "link"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_citation_has_its_entry(page):
    assert set(cited(page.read_text(encoding="utf-8"))) <= set(ENTRIES)


def test_every_entry_is_cited():
    found = {key for page in PAGES for key in cited(page.read_text(encoding="utf-8"))}
    assert len(found) > 50
    assert set(ENTRIES) - found == set()


@pytest.mark.parametrize("key", list(ENTRIES))
def test_an_entry_has_authors_year_title_venue_and_link(key):
    assert lacks(ENTRIES[key]) == []


def test_no_work_is_listed_twice():
    titles = Counter(re.sub(r"\W", "", e.fields["title"].lower()) for e in ENTRIES.values())
    links = Counter(entry.fields["url"] for entry in ENTRIES.values())
    assert {*titles.values(), *links.values()} == {1}


def test_a_number_of_arxiv_is_that_of_the_link():
    for key, entry in ENTRIES.items():
        if found := re.fullmatch(r"arXiv:(\S+)", entry.fields.get("howpublished", "")):
            assert entry.fields["url"] == f"https://arxiv.org/abs/{found[1]}", key
