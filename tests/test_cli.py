"""The command `transformer-lit`."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from transformer_lit import cli

PARAMETERS = (
    'seed = 3  # a seed\nrate = 0.5  # a rate\nfast = True  # or slow\nword = "cat"  # a word'
)
HAS = "it has: seed = 3, rate = 0.5, fast = True, word = 'cat'\n"


def write_chapter(book, name, *cells, title="# A title", reading=7, running=15):
    """Write a notebook with a parameters cell, as the pipeline leaves it."""
    v4 = nbformat.v4
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(f"{title}\n\nA question?"),
            v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            *map(v4.new_code_cell, cells),
        ],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "transformer_lit": {"reading_minutes": reading, "running_seconds": running},
        },
    )
    book.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, book / f"{name}.ipynb")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the repository with two small chapters, as the working folder."""
    book = tmp_path / "book"
    write_chapter(book, "02-two", "print(seed, rate, fast, word)")
    last = {"title": "# The last", "reading": 23, "running": 90}
    write_chapter(book, "13-thirteen", "x = 5", "x / (seed - 3)", **last)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "transformer_lit" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.main, arguments)


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for cell in cells for o in cell.get("outputs", []) if "text" in o)


def test_list_gives_number_title_and_times(tree):
    result = call("list")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == ["02 A title read 7 min run 15 s", "13 The last read 23 min run 90 s"]


def test_run_executes_with_the_parameters_given(tree):
    parameters = ["-p", "seed", "-7", "-p", "rate", "2", "-p", "fast", "false", "-p", "word", "5"]
    result = call("run", "02", *parameters)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{Path('runs', '02-two.ipynb')}\n"
    assert "Executing" in result.stderr, "no progress"
    assert printed(tree / "runs" / "02-two.ipynb") == "-7 2.0 False 5\n"


@pytest.mark.parametrize("chapter", ["2", "02-two"])
def test_run_keeps_the_defaults_and_writes_where_told(tree, chapter):
    result = call("run", chapter, "--out", "else/where")
    assert result.exit_code == 0, result.output
    assert printed(tree / "else" / "where" / "02-two.ipynb") == "3 0.5 True cat\n"
    assert not (tree / "runs").exists()


def test_a_chapter_that_raises_is_reported_in_one_line(tree):
    result = call("run", "13")
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line == (
        "13-thirteen, cell [3] ('x / (seed - 3)'): ZeroDivisionError: division by zero; "
        f"see {Path('runs', '13-thirteen.ipynb')}"
    )
    assert call("run", "13", "-p", "seed", "5").exit_code == 0


def test_a_kernel_that_dies_is_reported_in_one_line(tree):
    write_chapter(tree / "book", "03-three", "import os; os._exit(1)")
    result = call("run", "3")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("03-three: Kernel died")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["99"], "no chapter '99'; there are: 02-two, 13-thirteen\n"),
        (["two"], "no chapter 'two'; there are: 02-two, 13-thirteen\n"),
        (["2", "-p", "sead", "5"], f"02-two has no parameter 'sead'; {HAS}"),
        (
            ["2", "-p", "seed", "many"],
            f"parameter 'seed' of 02-two: expected a value of type int, got 'many'; {HAS}",
        ),
        (
            ["2", "-p", "seed", "2.5"],
            f"parameter 'seed' of 02-two: expected a value of type int, got '2.5'; {HAS}",
        ),
        (
            ["2", "-p", "rate", "true"],
            f"parameter 'rate' of 02-two: expected a value of type float, got 'true'; {HAS}",
        ),
        (
            ["2", "-p", "fast", "1"],
            f"parameter 'fast' of 02-two: expected a value of type bool, got '1'; {HAS}",
        ),
    ],
)
def test_bad_input_is_answered_in_one_line_with_what_there_is(tree, arguments, line):
    result = call("run", *arguments)
    assert result.exit_code == 2
    assert result.stderr == line
    assert not result.stdout and not (tree / "runs").exists()


def test_a_folder_that_cannot_be_made_is_answered_in_one_line(tree):
    (tree / "file").write_text("")
    result = call("run", "2", "--out", "file/runs")
    assert result.exit_code == 2
    assert result.stderr == f"cannot write to {Path('file/runs')}: Not a directory\n"


def test_without_papermill_it_says_what_to_install(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    result = call("run", "2")
    assert result.exit_code == 2
    assert result.stderr == (
        "running a chapter needs papermill: pip install 'transformer-lit[book]'\n"
    )


def test_an_installed_package_has_its_chapters_inside(tree):
    write_chapter(tree / "transformer_lit" / "book", "05-five")
    assert list(cli.chapters()) == ["05-five"]


def test_the_book_of_this_repository_is_found():
    there = cli.chapters()
    assert there, "there is no chapter yet"
    for name, path in there.items():
        assert cli.find(name[:2]) == path
        assert "seed" in cli.parameters(json.loads(path.read_text()))


def test_importing_the_package_does_not_import_click():
    code = "import sys, transformer_lit; sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_entry_point_is_installed():
    (command,) = (Path(sys.executable).parent).glob("transformer-lit*")
    result = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "run" in result.stdout and "list" in result.stdout
