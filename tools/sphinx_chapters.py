"""A Sphinx extension: what the executed chapters say about themselves, on other pages.

- `{chapter-times}` is a table of all chapters: how long to read and to run, how much memory, when
  last verified, what it costs in Colab. All of it comes from the notebooks' metadata and from git.
- `{ladder}` holds a list, one chapter an item, and draws beside it which chapter stands on which:
  on those that its paragraph "You need to have read" links to.
- `{explorable} 04-self-attention` is the first explorable that this notebook saved, alive; a page
  may have one.

Besides, every page is described by the beginning of its first paragraph, in plain words, for
search engines and for the cards that sphinxext.opengraph draws.
"""

import functools
import json
import logging
import math
import pathlib
import posixpath
import re
import subprocess
import textwrap

from docutils import nodes, statemachine
from sphinx.util.docutils import SphinxDirective
from sphinxext import opengraph

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNKNOWN = "—"
NEEDS = re.compile(r"^You need to have read .*$", re.MULTILINE)

# What Colab costs. Without paying, nothing. With paid units, which Google sells by the hundred, a
# session with a small GPU was reported to use up to two of them an hour (September 2022 to May
# 2023), and one without a GPU uses less: so this is an upper bound.
INSTALLING = 120  # seconds that the first cell may take
UNITS_PER_HOUR = 2
CENTS_PER_UNIT = 10


@functools.cache
def notebook(path: pathlib.Path) -> dict:
    """An executed chapter; cached, for one build."""
    return json.loads(path.read_text(encoding="utf-8"))


def notebooks(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The executed chapters of a book, in order: `04` and its file."""
    return {path.name[:2]: path for path in sorted((root / "book").glob("[0-9][0-9]-*.ipynb"))}


# --- the table -------------------------------------------------------------------------------


def dates(root: pathlib.Path) -> dict[str, str]:
    """The day on which each file of book/ was last committed, by its name.

    Empty without git, and in a shallow clone, which would name one day for all.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    try:
        if git("rev-parse", "--is-shallow-repository").strip() == "true":
            return {}
        lines = git("log", "--format=> %cs", "--name-only", "--relative", "--", "book").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = {}
    day = ""
    for line in filter(None, lines):
        if line.startswith("> "):
            day = line[2:]
        else:
            found.setdefault(posixpath.basename(line), day)
    return found


def cents(seconds: float) -> int:
    """At most so many cents are paid for a chapter that runs so long, in a session of its own."""
    return math.ceil((seconds + INSTALLING) / 3600 * UNITS_PER_HOUR * CENTS_PER_UNIT)


def times(root: pathlib.Path) -> list[list[str]]:
    """The rows of the table, and a last one with the sums."""
    days, rows, reading, running, peaks, paid = dates(root), [], 0, 0, [], 0
    for number, path in notebooks(root).items():
        kept = notebook(path)["metadata"]["transformer_lit"]
        minutes, seconds = kept["reading_minutes"], kept["running_seconds"]
        peak = kept.get("peak_gigabytes")
        rows.append(
            [
                number,
                f"[](/book/{path.name})",
                f"{minutes} min",
                f"{seconds} s",
                f"{peak} GB" if peak else UNKNOWN,
                days.get(path.name, UNKNOWN),
                f"free, or {cents(seconds)} ¢",
            ]
        )
        reading, running, paid = reading + minutes, running + seconds, paid + cents(seconds)
        peaks.append(peak)
    most = f"{max(peaks)} GB" if all(peaks) else UNKNOWN
    oldest = min(row[5] for row in rows) if days else UNKNOWN
    total = [f"{reading / 60:.1f} h", f"{running / 60:.0f} min", most, oldest]
    return [*rows, ["", "All of them", *total, f"free, or {paid} ¢"]]


class ChapterTimes(SphinxDirective):
    """`{chapter-times}`: the table."""

    def run(self) -> list[nodes.Node]:
        """Write the table in Markdown and have it parsed."""
        for path in notebooks(ROOT).values():
            self.env.note_dependency(str(path))
        heads = ["", "Chapter", "Reading", "Running", "Memory", "Last verified", "In Colab"]
        rows = [heads, ["---"] * 2 + ["--:"] * 5, *times(ROOT)]
        (table,) = parse(self, [f"| {' | '.join(row)} |" for row in rows])
        table["classes"].append("times")
        return [table]


# --- the ladder ------------------------------------------------------------------------------


def stands_on(root: pathlib.Path) -> dict[str, list[str]]:
    """The numbers of the chapters that each chapter wants read, from its own words."""
    found = {}
    for number, path in notebooks(root).items():
        text = "\n".join("".join(c["source"]) for c in notebook(path)["cells"][:2])
        line = NEEDS.search(text)
        links = re.findall(r"\]\((\d\d)-[^)]*\.ipynb", line[0]) if line else []
        found[number] = sorted(set(links))
    return found


def reduce(graph: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same graph without the edges that follow from others: what has to be drawn."""
    reached: dict[str, set[str]] = {}
    kept = {}
    for node, below in graph.items():
        implied = set().union(*(reached[one] for one in below))
        kept[node] = [one for one in below if one not in implied]
        reached[node] = implied | set(below)
    return kept


def lanes(graph: dict[str, list[str]]) -> dict[str, int]:
    """A column for each node, so that the line from it down to its last child is its own."""
    order = list(graph)
    last = {node: max([i, *(order.index(c) for c in order if node in graph[c])])
            for i, node in enumerate(order)}  # fmt: skip
    until: list[int] = []  # the row in which a lane becomes free
    found = {}
    for i, node in enumerate(order):
        free = [lane for lane, row in enumerate(until) if row <= i]
        straight = [found[one] for one in graph[node] if found[one] in free]
        lane = min(straight or free or [len(until)])
        until[lane : lane + 1] = [last[node]]
        found[node] = lane
    return found


def drawings(graph: dict[str, list[str]]) -> dict[str, str]:
    """The piece of the picture that stands beside each node: an SVG as high as its row.

    A row reaches from 0 to 2 and its node stands at 1. A line that goes on below its child passes
    straight through the row, and another one branches off to the child.
    """
    lane, order = lanes(graph), list(graph)
    width = max(lane.values()) + 1
    children = {node: [c for c in order if node in graph[c]] for node in order}
    pieces = {}
    for i, node in enumerate(order):
        here, paths = lane[node] + 0.5, []
        for other in order[:i]:
            x = lane[other] + 0.5
            goes_on = any(order.index(c) > i for c in children[other])
            if goes_on:
                paths.append(f"M{x} 0V2")
            if other in graph[node] and (x != here or not goes_on):
                paths.append(f"M{x} 0C{x} .7 {here} .3 {here} 1")
        if children[node]:
            paths.append(f"M{here} 1V2")
        drawn = "".join(f'<path d="{path}" vector-effect="non-scaling-stroke"/>' for path in paths)
        pieces[node] = (
            f'<span class="ladder-lines" aria-hidden="true" style="--lanes:{width};--lane:{here}">'
            f'<svg viewBox="0 0 {width} 2" preserveAspectRatio="none">{drawn}</svg></span>'
        )
    return pieces


class Ladder(SphinxDirective):
    """`{ladder}`: a list of chapters, with what each stands on in lines and in words."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Put the drawing in front of each item, and behind it the links."""
        paths, needs = notebooks(ROOT), stands_on(ROOT)
        drawn = drawings(reduce(needs))
        for path in paths.values():
            self.env.note_dependency(str(path))
        (listed,) = parse(self, self.content)
        listed["classes"].append("ladder")
        for item, number in zip(listed.children, paths, strict=True):
            item.insert(0, nodes.raw("", drawn[number], format="html"))
            item[1].insert(0, nodes.inline("", f"{number} ", classes=["ladder-number"]))
            links = [f"[{one}](/book/{paths[one].name})" for one in needs[number]]
            words = f"Stands on {', '.join(links)}" if links else "Stands on nothing"
            (said,) = parse(self, [words])
            said["classes"].append("ladder-needs")
            item.append(said)
        return [listed]


# --- an explorable ---------------------------------------------------------------------------


def saved_explorable(path: pathlib.Path) -> tuple[dict, str]:
    """The first explorable of a notebook: the saved state, and the id that it has there.

    Raises:
        ValueError: the notebook has none.
    """
    view = "application/vnd.jupyter.widget-view+json"
    kept = notebook(path)
    for cell in kept["cells"]:
        for output in cell.get("outputs", []):
            if view in output.get("data", {}):
                name = output["data"][view]["model_id"]
                states = kept["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]
                return {name: states["state"][name]}, name
    raise ValueError(f"{path.name} has no saved explorable")


class SavedExplorable(SphinxDirective):
    """`{explorable} 04-self-attention`: what book/assets/explorables.js draws on any page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write what myst-nb writes for a notebook: a state, a view and the script."""
        path = ROOT / "book" / f"{self.arguments[0]}.ipynb"
        self.env.note_dependency(str(path))
        state, name = saved_explorable(path)
        up = "../" * self.env.docname.count("/")
        kind = "application/vnd.jupyter.widget"
        saved = json.dumps({"state": state, "version_major": 2, "version_minor": 0})
        view = json.dumps({"model_id": name, "version_major": 2, "version_minor": 0})
        text = (
            f'<script type="{kind}-state+json">{escape(saved)}</script>'
            f'<script defer="defer" src="{up}_static/explorables.js"></script>'
            f'<div class="explorable-room"><script type="{kind}-view+json">{view}</script></div>'
        )
        return [nodes.raw("", text, format="html")]


def escape(text: str) -> str:
    """JSON that may stand in a script element."""
    return text.replace("<", "\\u003c")


# --- what a page is about --------------------------------------------------------------------


def describe(document: nodes.Node, length: int, titles: object = ()) -> str:
    """As many sentences of the first paragraph as fit, up to the first formula.

    Where they would fill less than half of the length, its beginning, cut after a word.
    """
    paragraph = next(iter(document.findall(nodes.paragraph)), None)
    if paragraph is None:
        return ""
    words = ""
    for node in paragraph.findall(lambda n: isinstance(n, nodes.Text | nodes.math)):
        if isinstance(node, nodes.math):
            break
        words += node.astext()
    words = " ".join(words.split())
    ends = [end.end() for end in re.finditer(r"[.?!](?= |$)", words) if end.end() <= length]
    if ends and (ends[-1] >= length / 2 or len(words) <= length):
        return words[: ends[-1]]
    return textwrap.shorten(words, length, placeholder=" …")


def parse(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    """The nodes that lines of Markdown become, where the directive stands."""
    container = nodes.Element()
    content = statemachine.StringList(list(lines), source=directive.get_source_info()[0])
    directive.state.nested_parse(content, directive.content_offset, container)
    return container.children


def setup(app):
    """Called by Sphinx."""
    opengraph.get_description = describe
    logging.getLogger("matplotlib.font_manager").setLevel("ERROR")  # the cards' font has one weight
    app.connect("builder-inited", lambda app: notebook.cache_clear())
    app.add_directive("chapter-times", ChapterTimes)
    app.add_directive("ladder", Ladder)
    app.add_directive("explorable", SavedExplorable)
    return {"parallel_read_safe": True}
