"""The table of what is often said: a row for each box of the chapters, a box for each row."""

import re
from pathlib import Path

import bs4
import pytest
from docutils.nodes import make_id

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]-*.md"))
ROW = re.compile(r"^\| (\d\d) \| \[(.+?)\]\((\S+\.ipynb#\S+)\) \| (.+) \|$")


def boxes(text: str) -> list[str]:
    """The claims in the titles of a chapter's boxes."""
    return re.findall(r"^:{3,}\{admonition\} Often said: (.+)$", text, re.MULTILINE)


def beginning(path: Path, claim: str) -> str:
    """A row up to its last column, ready to be copied from a test that misses it."""
    target = f"{path.stem}.ipynb#{make_id(f'Often said: {claim}')}"
    return f"| {path.name[:2]} | [{claim}]({target}) |"


def rows() -> list[re.Match]:
    lines = (BOOK / "measured.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if re.match(r"\| \d", line)]
    found = [ROW.match(line) for line in table]
    assert all(found), f"not a row: {table[found.index(None)]}"
    return found


def test_a_box_is_found():
    text = "x\n\n:::{admonition} Often said: it is so\n:class: important\n\nNo.\n:::\n"
    assert boxes(text + text.replace(":::", "::::")) == ["it is so", "it is so"]
    assert boxes("It is often said: no.\n:::{admonition} Hint\n:::") == []


def test_every_box_of_every_chapter_has_its_row_and_every_row_its_box():
    wanted = [
        beginning(path, claim)
        for path in CHAPTERS
        for claim in boxes(path.read_text(encoding="utf-8"))
    ]
    assert len(wanted) > 20
    assert [f"| {row[1]} | [{row[2]}]({row[3]}) |" for row in rows()] == wanted


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_has_a_box(path):
    assert boxes(path.read_text(encoding="utf-8"))


def test_a_verdict_is_short():
    for row in rows():
        assert row[4].endswith(".") and 4 <= len(row[4].split()) <= 25, row[0]


def test_every_row_leads_to_its_box(site):
    boxes = {}
    for row in rows():
        name, anchor = row[3].split(".ipynb#")
        if name not in boxes:
            html = (site.folder / "book" / f"{name}.html").read_text(encoding="utf-8")
            found = bs4.BeautifulSoup(html, "html.parser").select(".admonition[id]")
            boxes[name] = {box["id"]: box for box in found}
        box = boxes[name].get(anchor)
        assert box is not None, row[3]
        assert box.p.get_text() == f"Often said: {row[2]}"
    html = (site.folder / "book" / "measured.html").read_text(encoding="utf-8")
    links = bs4.BeautifulSoup(html, "html.parser").select("table a[href]")
    wanted = [row[3].replace(".ipynb#", ".html#") for row in rows()]
    assert [link["href"] for link in links] == wanted
