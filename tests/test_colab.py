"""The tool that runs the chapters as Colab runs them: tools/colab.py, and its tests/colab.txt."""

import contextlib
import io
import json
import re
import subprocess

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.browser import ROOT, load_tool
from tests.test_repository import PROJECT, constraints

tool = load_tool("colab")
tool.PACKAGE = "tiny_lit"  # transformer_lit lies in the environment of these tests

# hatchling lies there too, so that no network is needed.
INSTALL = f'%pip install -q --no-build-isolation "tiny-lit @ git+{tool.ADDRESS}"'
PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "tiny-lit"
version = "1"
"""
ALONE = """\
import importlib.util, ipywidgets, os, tiny_lit
assert os.listdir() == ["01-good.ipynb"], os.listdir()
assert os.environ["OMP_NUM_THREADS"] == "1" and "PYTHONPATH" not in os.environ
assert importlib.util.find_spec("transformer_lit") is None
assert tiny_lit.which == "of the commit"
ipywidgets.IntSlider()"""
FIVE = nbformat.v4.new_output("execute_result", {"text/plain": "5"}, execution_count=1)
FIGURE = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})
VIEW = nbformat.v4.new_output("display_data", {tool.VIEW: {"model_id": "one"}})
STATE = {tool.STATE: {"state": {"one": {}}}}


def notebook(*cells, widgets=None):
    """A notebook of pairs: the text of a code cell, and what it has shown."""
    kernel = {"name": "python3", "display_name": "Python 3"}
    made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "widgets": widgets or {}})
    made.cells = [nbformat.v4.new_code_cell(code, outputs=outputs) for code, outputs in cells]
    return made


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with a package of one line and three chapters, and a change not committed."""
    root = tmp_path_factory.mktemp("repository")
    chapters = {
        "01-good": notebook((INSTALL, []), (ALONE, [VIEW]), widgets=STATE),
        "02-raises": notebook((INSTALL, []), ("2 + 3", [FIVE]), ("raise ValueError('no q')", [])),
        "03-bare": notebook(("import math", []), ("2 + 3", [FIGURE])),
    }
    (root / "book").mkdir()
    for name, chapter in chapters.items():
        nbformat.write(chapter, root / "book" / f"{name}.ipynb")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "tiny_lit").mkdir()
    (root / "tiny_lit" / "__init__.py").write_text("which = 'of the commit'\n")
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "tiny_lit" / "__init__.py").write_text("which = 'changed since'\n")
    return root


@pytest.fixture(scope="module")
def tried(repository):
    """Exit status, standard output and standard error of the tool, for all three."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = tool.main([], repository)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def worker(tmp_path):
    return tool.Worker(tmp_path, tmp_path / "clone", "f00d")


def installed(worker, name, **origin):
    """Lay down what pip leaves behind a package it has installed."""
    folder = worker.above / f"{name}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (folder / "RECORD").write_text(f"{folder.name}/METADATA,,\n")
    (folder / "direct_url.json").write_text(json.dumps(origin))


def test_a_chapter_alone_with_the_commit_from_the_address_passes(tried):
    status, out, _ = tried
    assert re.search(r"^01-good: \d+ s\n(?!the |cell )", out, re.M), out
    assert out.endswith("1 passed, 2 failed\n")
    assert status == 1


def test_a_chapter_that_raises_fails_with_its_name_the_cell_and_the_message(tried):
    failure = re.search(r"^02-raises: \d+ s\n(.*?)(?=^\d\d-|^\d passed)", tried[1], re.M | re.S)[1]
    assert "raise ValueError('no q')" in failure
    assert re.search(r"^ValueError: no q$", failure, re.M)
    assert failure.count("Traceback") == 1, "the tool that executes shows its own too"


def test_a_chapter_that_shows_less_or_installs_nothing_fails(tried):
    assert re.search(
        r"^03-bare: \d+ s\ncell \[2\] shows no image/svg\+xml\n"
        r"the first cell installed nothing\n",
        tried[1],
        re.M,
    )


def test_the_last_commit_is_cloned_without_its_parents(repository, tmp_path):
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    more = tmp_path / "more"
    subprocess.run(["git", "clone", "-q", repository, more], check=True)
    subprocess.run(
        ["git", *author, "commit", "-q", "--allow-empty", "-m", "Go on"], cwd=more, check=True
    )
    commit = tool.snapshot(more, tmp_path / "clone")

    def answer(*question):
        return tool.output_of("git", *question, cwd=tmp_path / "clone")

    assert answer("rev-list", "HEAD") == commit
    assert answer("rev-parse", "--is-shallow-repository") == "false"
    assert answer("status", "--porcelain") == ""


def test_what_is_not_committed_is_pointed_out(tried):
    assert tried[2] == "not committed, and so not tried:\n M tiny_lit/__init__.py\n"


def test_an_unknown_chapter_is_answered_with_those_there_are(repository, capsys):
    assert tool.main(["02", "11"], repository) == 2
    assert capsys.readouterr().err.endswith("no chapter '11'; there are: 01, 02, 03\n")


def test_what_a_cell_no_longer_shows_and_that_it_warns_is_said():
    warning = nbformat.v4.new_output("stream", name="stderr", text="deprecated")
    words = nbformat.v4.new_output("stream", name="stdout", text="seven")
    stored = notebook(("a", [FIVE, FIGURE]), ("b", [words]), ("c", [VIEW]), widgets=STATE)
    assert tool.differences(stored, stored) == []
    assert tool.differences(stored, notebook(("a", [FIVE]), ("b", [warning]), ("c", [VIEW]))) == [
        "cell [1] shows no image/svg+xml",
        "cell [2] shows no stdout",
        "cell [2] warns",
        f"cell [3] shows no {tool.VIEW}",
    ]


@pytest.mark.parametrize(
    ("url", "commit"), [(tool.ADDRESS, "beef"), ("https://example.org/other", "f00d")]
)
def test_a_package_from_elsewhere_is_seen(worker, url, commit):
    installed(worker, "tiny_lit", url=url, vcs_info={"commit_id": commit})
    (problem,) = worker.clear()
    assert problem.startswith("the first cell installed {") and problem.endswith("not f00d")


def test_a_package_that_was_there_before_must_not_be_replaced(worker):
    installed(worker, "numpy")
    installed(worker, "no_such_package")
    installed(worker, "tiny_lit", url=tool.ADDRESS, vcs_info={"commit_id": "f00d"})
    assert worker.clear() == ["the first cell installed another numpy"]


# ---- tests/colab.txt --------------------------------------------------------------------------


def pins():
    lines = (ROOT / "tests" / "colab.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_versions_are_exact_and_those_of_colab():
    assert {name: pins()[name] for name in ("numpy", "matplotlib", "ipywidgets", "anywidget")} == {
        "numpy": "2.1.3", "matplotlib": "3.10.0", "ipywidgets": "7.7.1", "anywidget": "0.9.21",
    }  # fmt: skip
    assert (pins()["ipython"], pins()["ipykernel"]) == ("7.34.0", "6.17.1")


def test_torch_is_the_one_of_the_book():
    assert pins()["torch"] == constraints()["torch"]


def test_the_package_takes_what_colab_has_and_is_not_in_it():
    names = {canonicalize_name(name): version for name, version in pins().items()}
    assert canonicalize_name(PROJECT["name"]) not in names
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["data"]]
    for requirement in map(Requirement, wanted):
        if version := names.get(canonicalize_name(requirement.name)):
            assert requirement.specifier.contains(version), requirement
