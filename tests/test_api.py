"""The page about the package lists every module and every public name, and what each refuses."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import bs4
import click
import pytest

import transformer_lit
from transformer_lit import LADDER

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
MODULES = ["transformer_lit"] + [
    found.name
    for found in pkgutil.walk_packages(transformer_lit.__path__, "transformer_lit.")
    if not any(part.startswith("_") for part in found.name.split("."))
]
INTERNAL = {"Mistake", "Unwritten"}  # raised by checks of exercises, and caught where they are run

every_module = pytest.mark.parametrize("name", MODULES)


def tree_of(name: str) -> ast.Module:
    return ast.parse(Path(importlib.import_module(name).__file__).read_text(encoding="utf-8"))


def public_names(name: str) -> set[str]:
    """What a module defines for others, methods and properties of its classes included."""
    module, found = importlib.import_module(name), set()
    for statement in tree_of(name).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", None) or [statement.target]
            parts = [part for target in targets for part in ast.walk(target)]
            found |= {part.id for part in parts if isinstance(part, ast.Name)}
    for inside, value in vars(module).items():
        value = value.callback if isinstance(value, click.Command) else value
        if getattr(value, "__module__", None) == name and hasattr(value, "__qualname__"):
            found.add(inside)
        if inspect.isclass(value) and value.__module__ == name:
            members = vars(value).items()
            found |= {
                f"{inside}.{member}"
                for member, what in members
                if inspect.isfunction(what) or isinstance(what, property | classmethod)
            }
    return {one for one in found if not any(part.startswith("_") for part in one.split("."))}


@pytest.fixture(scope="module")
def page(site):
    html = (site.folder / "book" / "api.html").read_text(encoding="utf-8")
    return bs4.BeautifulSoup(html, "html.parser")


# ---- everything is there ----------------------------------------------------------------------


def test_every_module_of_the_package_has_its_section():
    listed = re.findall(r"^\.\. reference:: (\S+)$", PAGE, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == set(MODULES)
    titled = re.findall(r"^### (\S+)\n\n```\{eval-rst\}\n\.\. reference:: (\S+)$", PAGE, re.M)
    assert ["transformer_lit", *(module for _, module in titled)] == listed
    assert all(module == f"transformer_lit.{title}" for title, module in titled)


def test_modules_stand_in_the_order_of_the_ladder():
    listed = re.findall(r"^\.\. reference:: transformer_lit\.(\S+)$", PAGE, re.MULTILINE)
    assert tuple(listed[: len(LADDER)]) == LADDER
    checks = [name.removeprefix("exercises.") for name in listed if name.startswith("exercises.")]
    assert checks == sorted(checks, key=LADDER.index)


def test_public_names_are_found_in_every_form():
    names = public_names("transformer_lit.attention")
    assert {"Mask", "check_mask", "SelfAttention", "SelfAttention.forward"} <= names
    assert not names & {"Tensor", "F", "_check", "SelfAttention.__init__"}
    assert {"pronounce", "AT_ONCE"} <= public_names("transformer_lit.cli")
    assert {"State.length", "BEGIN", "STOP"} <= public_names("transformer_lit.encoder_decoder")
    assert "SeparateHeads.split" in public_names("transformer_lit.multi_head")
    assert {"language", "Tree"} <= public_names("transformer_lit.data.grammar")
    assert "mean_pool" not in public_names("transformer_lit.exercises.encoder")


@every_module
def test_every_public_name_stands_on_the_page(page, name):
    there = {term["id"] for term in page.select("article dt[id]")}
    missing = {one for one in public_names(name) if f"{name}.{one}" not in there}
    assert not missing


def test_every_floor_leads_to_its_chapter(page):
    for number, floor in enumerate(LADDER, start=1):
        section = page.find(id=f"module-transformer_lit.{floor}").find_parent("section")
        (chapter,) = (ROOT / "book").glob(f"{number:02d}-*.md")
        links = [link["href"] for link in section.select(f'a[href="{chapter.stem}.html"]')]
        assert len(links) == 1, floor
        assert f"Chapter {number:02d}" in section.get_text()


def test_every_name_leads_to_its_lines(page):
    terms = page.select("article dl.py > dt")
    assert len(terms) > 200
    for term in terms:
        (address,) = [link["href"] for link in term.select("a.reference.external")]
        found = re.search(r"/blob/main/(\S+\.py)#L(\d+)-L(\d+)$", address)
        lines = (ROOT / found[1]).read_text(encoding="utf-8").splitlines()
        name = term["id"].rpartition(".")[2]
        assert name in "\n".join(lines[int(found[2]) - 1 : int(found[3])]), address


def test_shapes_are_as_the_source_has_them(page):
    text = page.article.get_text()
    assert "Float[Tensor, 'batch seq d_model']" in text
    assert "jaxtyping." not in text
    forward = page.find(id="transformer_lit.attention.SelfAttention.forward")
    assert "mask: Mask | None = None" in forward.get_text()
    assert forward.select_one('a[href="#transformer_lit.attention.Mask"]')


# ---- what docstrings owe ----------------------------------------------------------------------


def raised(what: ast.FunctionDef) -> set[str]:
    """Names of the errors that a function raises itself, or a function inside it."""
    found = set()
    for node in ast.walk(what):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
    return found - INTERNAL


def owed(tree: ast.Module) -> list[str]:
    """Public functions and classes without a docstring, or with an error that it does not list."""
    found = []

    def look(what, path: str, outer: str) -> None:
        text = ast.get_docstring(what) or ""
        public = not what.name.startswith("_")
        if public and not text:
            found.append(f"{path}{what.name} has no docstring")
        if isinstance(what, ast.ClassDef):
            for inner in what.body:
                if isinstance(inner, ast.FunctionDef):
                    look(inner, f"{path}{what.name}.", text)
        elif public or what.name in ("__init__", "__post_init__", "__call__"):
            listed = "".join(part.partition("Raises:")[2] for part in (text, outer))
            for error in sorted(raised(what)):
                if f"{error}:" not in listed:
                    found.append(f"{path}{what.name} raises {error}, its docstring does not say so")

    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name[0] != "_":
            look(statement, "", "")
    return found


def test_a_debt_would_be_seen():
    assert owed(ast.parse("def f(): pass")) == ["f has no docstring"]
    code = 'def f():\n    """Do it."""\n    raise ValueError("no")'
    assert owed(ast.parse(code)) == ["f raises ValueError, its docstring does not say so"]
    assert owed(ast.parse(code.replace("it.", "it.\n\n    Raises:\n        ValueError: so."))) == []
    code = 'class C:\n    """A thing."""\n    def __init__(self):\n        raise TypeError("no")'
    assert owed(ast.parse(code)) == ["C.__init__ raises TypeError, its docstring does not say so"]
    assert owed(ast.parse(code.replace("thing.", "thing. Raises: TypeError: so."))) == []
    assert owed(ast.parse('def _f():\n    raise ValueError("no")')) == []


@every_module
def test_every_public_name_has_a_docstring_that_lists_its_errors(name):
    assert owed(tree_of(name)) == []
