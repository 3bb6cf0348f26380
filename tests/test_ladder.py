"""The ladder: chapter NN, and the floor it adds, stand on floors 01 to NN and on no other."""

import ast
import re
import tomllib
from pathlib import Path

import jupytext
import pytest

from transformer_lit import LADDER

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "transformer_lit"
ANNEX = {"data", "figures", "show", "explorables", "exercises", "checkpoints", "cli"}
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]-*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SITE = PROJECT["urls"]["Documentation"]


def modules_imported(code: str) -> set[str]:
    """Names right below `transformer_lit` that a piece of code imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "transformer_lit." if node.level else ""
            base = (base + (node.module or "")).strip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {part[1] for part in parts if part[0] == "transformer_lit" and len(part) > 1}
    return found


def code_of(chapter: Path) -> str:
    """The code cells of a chapter, its solutions too, without IPython's own lines."""
    notebook = jupytext.read(chapter, fmt="md:myst")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)


def too_high(code: str, number: int, annex: set[str]) -> set[str]:
    """What a piece of code imports that is neither a floor up to `number` nor in the annex."""
    return modules_imported(code) - set(LADDER[:number]) - annex


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch, numpy.linalg", set()),
        ("import transformer_lit", set()),
        ("import transformer_lit.window as w", {"window"}),
        ("from transformer_lit import embedding, show", {"embedding", "show"}),
        ("from transformer_lit.data import pronunciations", {"data"}),
        ("from transformer_lit.data.pronunciations import load", {"data"}),
        ("from . import figures", {"figures"}),
        ("from .attention import attend", {"attention"}),
        ("def f():\n    if True:\n        from transformer_lit import cli", {"cli"}),
    ],
)
def test_imports_of_every_form_are_seen(code, found):
    assert modules_imported(code) == found


def test_a_step_up_the_ladder_is_caught():
    up = "from transformer_lit import embedding, attention, figures"
    assert too_high(up, 3, set()) == {"attention", "figures"}
    assert too_high(up, 3, ANNEX) == {"attention"}
    assert too_high(up, 4, ANNEX) == set()


def test_every_module_is_a_floor_or_in_the_annex():
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(LADDER) <= files, "a floor has no module"
    assert files | folders <= set(LADDER) | ANNEX
    assert len(set(LADDER)) == len(LADDER)


@pytest.mark.parametrize("number", range(1, len(LADDER) + 1))
def test_a_floor_imports_no_floor_above_it_and_nothing_of_the_annex(number):
    code = (PACKAGE / f"{LADDER[number - 1]}.py").read_text(encoding="utf-8")
    assert too_high(code, number, annex=set()) == set()


def test_the_package_itself_imports_nothing():
    code = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert not [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("number", range(1, len(LADDER) + 1))
def test_a_floor_says_in_a_sentence_what_it_is_and_where_it_belongs(number):
    tree = ast.parse((PACKAGE / f"{LADDER[number - 1]}.py").read_text(encoding="utf-8"))
    first, _, rest = ast.get_docstring(tree).partition("\n\n")
    assert re.fullmatch(r"[^.?!]+\.", first), f"not one sentence: {first!r}"
    fields = re.findall(r"^(\w+):", rest, flags=re.MULTILINE)
    assert fields in (["Chapter"], ["Chapter", "Paper"])
    pages = re.findall(r"^Chapter: (\S+)$", rest, flags=re.MULTILINE)
    assert pages == [
        f"{SITE}/book/{path.stem}.html" for path in CHAPTERS if chapter(path) == number
    ]
    if "Paper" in fields:
        paper = rest[rest.index("Paper:") :]
        assert re.search(r"\b(19|20)\d\d\b", paper), "no year"
        assert re.search(r"https?://\S+", paper), "no link"


def chapter(path: Path) -> int:
    """A chapter's number."""
    return int(path.name[:2])


def test_chapters_and_floors_are_as_many_and_numbered_without_a_gap():
    assert [chapter(path) for path in CHAPTERS] == list(range(1, len(LADDER) + 1))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_stands_on_its_own_floor_and_those_below(path):
    code = code_of(path)
    assert too_high(code, chapter(path), ANNEX - {"cli"}) == set()
    assert LADDER[chapter(path) - 1] in modules_imported(code), "it never uses its own floor"
