"""What tools/sphinx_chapters.py puts on the pages: times, the ladder, a saved explorable."""

import json
import re
import subprocess

import bs4
import pytest
from docutils import nodes

from tests.browser import ROOT, load_tool

tool = load_tool("sphinx_chapters")


def write(root, name, *cells, **kept):
    """A small executed chapter."""
    (root / "book").mkdir(exist_ok=True)
    kept = {"reading_minutes": 3, "running_seconds": 10} | kept
    document = {
        "cells": [{"cell_type": "markdown", "source": [cell]} for cell in cells],
        "metadata": {"transformer_lit": kept},
    }
    (root / "book" / f"{name}.ipynb").write_text(json.dumps(document))


# ---- the table --------------------------------------------------------------------------------


def test_the_table_says_what_the_notebooks_say(tmp_path):
    write(tmp_path, "02-two", peak_gigabytes=0.7)
    write(tmp_path, "03-three", reading_minutes=27, running_seconds=50, peak_gigabytes=1.1)
    assert tool.times(tmp_path) == [
        ["02", "[](/book/02-two.ipynb)", "3 min", "10 s", "0.7 GB", "—", "free, or 1 ¢"],
        ["03", "[](/book/03-three.ipynb)", "27 min", "50 s", "1.1 GB", "—", "free, or 1 ¢"],
        ["", "All of them", "0.5 h", "1 min", "1.1 GB", "—", "free, or 2 ¢"],
    ]


def test_what_was_not_measured_is_a_dash_in_its_row_and_in_the_sum(tmp_path):
    write(tmp_path, "02-two", peak_gigabytes=0.7)
    write(tmp_path, "03-three")
    assert [row[4] for row in tool.times(tmp_path)] == ["0.7 GB", "—", "—"]


def test_the_cents_are_counted_by_hand():
    assert tool.cents(0) == 1  # two minutes: 2 units * 10 cents / 30 = 0.67
    assert tool.cents(60) == 1  # three minutes: exactly 1
    assert tool.cents(61) == 2
    assert tool.cents(3480) == 20  # an hour


def git(root, *arguments, day="2026-01-02"):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    date = f"{day}T12:00:00+00:00"
    subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date},
    )  # fmt: skip


def test_a_chapter_was_verified_on_the_day_of_its_last_commit(tmp_path):
    write(tmp_path, "02-two")
    write(tmp_path, "03-three")
    assert tool.dates(tmp_path) == {}  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "Two chapters")
    write(tmp_path, "03-three", running_seconds=20)
    git(tmp_path, "commit", "-qam", "Run one again", day="2026-03-05")
    assert tool.dates(tmp_path) == {"02-two.ipynb": "2026-01-02", "03-three.ipynb": "2026-03-05"}
    assert [row[5] for row in tool.times(tmp_path)] == ["2026-01-02", "2026-03-05", "2026-01-02"]
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", tmp_path.as_uri(), str(shallow))
    assert tool.dates(shallow) == {}


def test_the_page_has_a_row_for_each_chapter(site):
    page = bs4.BeautifulSoup((site.folder / "book" / "times.html").read_text(), "html.parser")
    rows = page.select("article table tbody tr")
    shown = [[cell.get_text(strip=True) for cell in row.select("td")] for row in rows]
    wanted = tool.times(ROOT)
    assert [[row[0], *row[2:]] for row in shown] == [[row[0], *row[2:]] for row in wanted]
    links = [row.select_one("a")["href"] for row in rows[:-1]]
    assert links == [path.with_suffix(".html").name for path in tool.notebooks(ROOT).values()]


# ---- the ladder -------------------------------------------------------------------------------


def test_a_chapter_stands_on_those_it_wants_read(tmp_path):
    needs = "You need to have read [b](03-b.ipynb) and [a](02-a.ipynb#part), and [a](02-a.ipynb).\n"
    write(tmp_path, "02-a", "# A\n\nSee [b](03-b.ipynb).\n")
    write(tmp_path, "05-c", "# C\n\nWhy?\n\n" + needs + "\nSee [d](07-d.ipynb).\n")
    assert tool.stands_on(tmp_path) == {"02": [], "05": ["02", "03"]}


def test_every_chapter_of_the_book_stands_on_earlier_ones():
    graph = tool.stands_on(ROOT)
    assert not graph.pop("01")
    for number, below in graph.items():
        assert below and max(below) < number, number


def test_what_follows_from_other_lines_is_not_drawn():
    graph = {"1": [], "2": ["1"], "3": ["1", "2"], "5": ["2"], "7": ["3", "5", "1"]}
    assert tool.reduce(graph) == {"1": [], "2": ["1"], "3": ["2"], "5": ["2"], "7": ["3", "5"]}


def test_each_line_has_a_lane_of_its_own():
    graph = {"1": [], "2": ["1"], "3": ["2"], "5": ["2"], "7": ["3", "5"]}
    # 2 keeps the first lane until its child 5 takes it over; 3 goes down beside it to 7.
    assert tool.lanes(graph) == {"1": 0, "2": 0, "3": 1, "5": 0, "7": 0}


def drawn_edges(graph):
    """The edges that somebody sees who follows the lines of the drawings from row to row."""
    pieces = tool.drawings(graph)
    seen, carried = [], {}  # the line at the lower border of the row above: place and origin
    for node, piece in pieces.items():
        here = float(re.search(r"--lane:([\d.]+)", piece)[1])
        below = {}
        for path in re.findall(r' d="(.*?)"', piece):
            start = float(re.match(r"M([\d.]+)", path)[1])
            if path.endswith("1V2"):
                assert start == here
                below[here] = node
            elif path.endswith("0V2"):
                below[start] = carried[start]
            else:
                assert path.endswith(f"{here} 1")
                seen.append((carried[start], node))
        carried = below
    assert not carried
    return sorted(seen)


def test_the_lines_that_one_sees_are_the_edges_of_the_graph():
    for graph in (
        {"1": [], "2": ["1"], "3": ["2"], "5": ["2"], "7": ["3", "5"]},
        tool.reduce(tool.stands_on(ROOT)),
    ):
        edges = sorted((below, node) for node in graph for below in graph[node])
        assert drawn_edges(graph) == edges


def test_the_first_page_says_in_words_what_each_chapter_stands_on(site):
    page = bs4.BeautifulSoup((site.folder / "index.html").read_text(), "html.parser")
    items = page.select("ul.ladder > li")
    graph = tool.stands_on(ROOT)
    assert [item.select_one(".ladder-number").get_text(strip=True) for item in items] == list(graph)
    for item, below in zip(items, graph.values(), strict=True):
        assert item.select_one(".ladder-lines")["aria-hidden"] == "true"
        said = item.select_one(".ladder-needs")
        assert said.get_text() == f"Stands on {', '.join(below) or 'nothing'}"
        assert [link["href"][5:7] for link in said.select("a")] == below


# ---- a saved explorable -----------------------------------------------------------------------


def test_the_first_explorable_of_a_notebook_is_found():
    state, name = tool.saved_explorable(tool.notebooks(ROOT)["11"])
    assert list(state) == [name] and "_esm" in state[name]["state"]


def test_a_notebook_without_an_explorable_is_refused(tmp_path):
    write(tmp_path, "02-two", "# Nothing moves")
    with pytest.raises(ValueError, match=r"02-two\.ipynb has no saved explorable"):
        tool.saved_explorable(tmp_path / "book" / "02-two.ipynb")


def test_no_text_of_an_explorable_ends_its_script_element():
    text = json.dumps({"html": "</script><!-- <b>"})
    assert "<" not in tool.escape(text) and json.loads(tool.escape(text)) == json.loads(text)


# ---- what a page is about ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["Why? Because it is. And more."], "Why? Because it is."),
        (["Chapter 0.5 fits. But this one does not."], "Chapter 0.5 fits."),
        (["Names like ", "<unk>", " are 'it'."], "Names like <unk> are 'it'."),
        (["This sentence is too long for what is given."], "This sentence is too long …"),
        (["Why? Because it has no short sentences."], "Why? Because it has no …"),
        (["It fits. ", nodes.math("", "x^2"), " does not."], "It fits."),
        ([], ""),
    ],
)
def test_a_page_is_described_by_whole_sentences_without_formulas(words, described):
    paragraph = nodes.paragraph()
    paragraph += [nodes.Text(word) if isinstance(word, str) else word for word in words]
    document = nodes.section("", nodes.title("", "Not this one."), paragraph)
    assert tool.describe(document, 27) == described


def test_a_page_without_a_paragraph_has_no_description():
    assert tool.describe(nodes.section("", nodes.title("", "A title")), 27) == ""
