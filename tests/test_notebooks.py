"""The pipeline that executes chapters, and the executed chapters themselves."""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from tests.browser import load_tool

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("[0-9][0-9]-*.md"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

tool = load_tool("notebooks")

FRONT = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""

SMALL = (
    FRONT
    + """\
# A small chapter

One two three?

<!-- times -->

```{code-cell} ipython3
:tags: [parameters]

seed = 3  # of the draw
```

Streams and a random draw.

```{code-cell} ipython3
import os, sys, torch
torch.manual_seed(seed)
print("drawn", file=sys.stderr)
print(torch.randn(2))
print(sorted(os.listdir()) == [], list({"a", "b", "c", "d", "e"}))
```

A figure.

```{code-cell} ipython3
import matplotlib.pyplot as plt
from transformer_lit import figures
figures.use_style()
plt.plot([2, 3, 5])
plt.show()
```

A widget inside another.

```{code-cell} ipython3
import anywidget, ipywidgets, traitlets
class Number(anywidget.AnyWidget):
    _esm = "export default {render({model, el}) {el.textContent = model.get('n')}}"
    n = traitlets.Int(3).tag(sync=True)
    def __repr__(self):
        return f"Number({self.n})"
ipywidgets.HBox([Number(), ipywidgets.IntSlider(n=5)])
```

An error that is wanted.

```{code-cell} ipython3
:tags: [raises-exception]

raise ValueError("no such symbol")
```
"""
)


def chapter(book, name, *cells):
    """Write a chapter of plain code cells, with a sentence before each."""
    text = FRONT + "# A chapter\n\n<!-- times -->\n\n"
    for cell in cells:
        text += f"Prose.\n\n```{{code-cell}} ipython3\n{cell}\n```\n\n"
    path = book / f"{name}.md"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small chapter, executed once."""
    book = tmp_path_factory.mktemp("book")
    (book / "07-small.md").write_text(SMALL)
    assert tool.main([], book=book) == 0
    return book / "07-small.ipynb"


def differences(first, second):
    """The first lines that differ; pytest's own comparison of two notebooks takes minutes."""
    pairs = itertools.zip_longest(first.splitlines(True), second.splitlines(True))
    return [pair for pair in pairs if pair[0] != pair[1]][:3]


# ---- the pipeline -----------------------------------------------------------------------------


def test_executed_twice_a_chapter_gives_the_same_bytes(small, monkeypatch):
    before = small.read_bytes()
    monkeypatch.setenv("MPLBACKEND", "agg")  # what somebody's shell may hold changes nothing
    assert tool.main(["7"], book=small.parent) == 0
    assert not differences(small.read_bytes(), before)


def test_nothing_random_is_left_in_the_notebook(small):
    text = small.read_text()
    notebook = json.loads(text)
    assert not re.search(r"\b[0-9a-f]{32}\b", text), "a random id"
    assert [cell["id"] for cell in notebook["cells"]] == [f"07-{i:03d}" for i in range(10)]
    assert "execution" not in text.replace('"execution_count"', "")
    assert set(notebook["metadata"]) == {
        "kernelspec", "language_info", "transformer_lit", "widgets",
    }  # fmt: skip
    assert "version" not in set(notebook["metadata"]["language_info"])
    assert text.endswith("}\n")


def test_widgets_keep_their_references_under_the_new_ids(small):
    notebook = json.loads(small.read_text())
    state = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert list(state) == [f"07-small-widget-{i:02d}" for i in range(7)]
    (view,) = re.findall(r'"model_id": "(.*?)"', json.dumps(notebook))
    box = state[view]["state"]
    children = [state[child.removeprefix("IPY_MODEL_")] for child in box["children"]]
    assert [child["model_name"] for child in children] == ["AnyModel", "IntSliderModel"]
    assert children[0]["state"]["n"] == 3 and "textContent" in children[0]["state"]["_esm"]


def test_the_chapter_ran_alone_in_this_interpreter(small):
    outputs = json.loads(small.read_text())["cells"][3]["outputs"]
    streams = {output["name"]: "".join(output["text"]) for output in outputs}
    assert streams["stderr"] == "drawn\n"
    assert "True" in streams["stdout"], "the folder it ran in was not empty"


def test_a_wanted_error_is_kept_without_its_traceback(small):
    (output,) = json.loads(small.read_text())["cells"][9]["outputs"]
    assert output["traceback"] == ["ValueError: no such symbol"]


def test_the_marker_becomes_the_times(small):
    notebook = json.loads(small.read_text())
    kept = notebook["metadata"]["transformer_lit"]
    assert kept["reading_minutes"] == 2  # 22 words / 200 + 19 lines / 20, rounded up
    assert kept["running_seconds"] % 5 == 0
    line = f"**Reading:** 2 minutes. **Running:** {kept['running_seconds']} seconds on two cores."
    assert notebook["cells"][0]["source"][-1] == line
    assert "<!-- times -->" not in small.read_text()


def test_words_and_lines_make_the_reading_time():
    words = nbformat.v4.new_markdown_cell(
        ":::{admonition} not counted\n" + "word " * 399 + "\n:::\n<!-- not counted -->"
    )
    code = nbformat.v4.new_code_cell("x = 1\n\n" * 23)
    hidden = nbformat.v4.new_code_cell("x = 1\n" * 97, metadata={"tags": ["hide-input"]})
    notebook = nbformat.v4.new_notebook(cells=[words, code, hidden])
    assert tool.reading_minutes(notebook) == 4  # 1.995 + 1.15


@pytest.mark.parametrize(
    ("measured", "recorded", "written"),
    [
        (12.1, None, 15),
        (0.3, None, 5),
        (20.0, None, 20),
        (14.9, 5, 5),  # within 10 seconds
        (15.1, 5, 20),
        (59.0, 30, 30),  # within a factor of 2
        (61.0, 30, 65),
        (31.0, 60, 60),
        (29.0, 60, 30),
    ],
)
def test_a_recorded_running_time_stays_unless_far_off(measured, recorded, written):
    assert tool.settle(measured, recorded) == written


@pytest.mark.parametrize(
    ("measured", "recorded", "written"),
    [
        (0.61, None, 0.7),
        (0.61, 0.5, 0.5),  # within a quarter of a GB
        (0.76, 0.5, 0.8),
        (0.5, 0.8, 0.5),
        (None, 0.8, 0.8),  # a system that doesn't tell
        (None, None, None),
    ],
)
def test_recorded_memory_stays_unless_far_off(measured, recorded, written):
    assert tool.settle_memory(measured, recorded) == written


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_the_memory_is_the_most_that_the_kernel_held(tmp_path):
    used = "block = bytearray(700_000_000)\nblock[::4096] = bytes([1]) * len(block[::4096])"
    path = chapter(tmp_path, "02-two", used, "del block")
    assert tool.main([], book=tmp_path) == 0
    peak = tool.record(path.with_suffix(".ipynb"))["peak_gigabytes"]
    assert 0.7 < peak < 0.9


def test_retime_writes_what_was_measured(tmp_path):
    chapter(tmp_path, "03-one", "1 + 1")
    assert tool.main([], book=tmp_path) == 0
    target = tmp_path / "03-one.ipynb"
    text = target.read_text()
    target.write_text(text.replace('"running_seconds": 5', '"running_seconds": 10'))
    assert tool.main(["03"], book=tmp_path) == 0
    assert '"running_seconds": 10' in target.read_text()
    assert tool.main(["03", "--retime"], book=tmp_path) == 0
    assert not differences(target.read_text(), text)


def test_a_chapter_that_raises_stops_the_run_and_leaves_the_old_notebook(tmp_path, capsys):
    chapter(tmp_path, "02-two", "x = 3")
    chapter(tmp_path, "03-three", "x = 5")
    assert tool.main([], book=tmp_path) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ipynb")}
    chapter(tmp_path, "02-two", "x = 3", "y = x - 3\nx / y", "x = 7")
    chapter(tmp_path, "03-three", "x = 7")
    capsys.readouterr()
    assert tool.main([], book=tmp_path) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message == "failed: 02-two.md, cell [2] ('y = x - 3'): ZeroDivisionError: division by zero"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ipynb")} == before
    assert len(list(tmp_path.iterdir())) == 4, "something else was left behind"


def test_a_kernel_that_dies_is_an_error_of_its_cell(tmp_path, capsys):
    chapter(tmp_path, "02-two", "x = 3", "import os; os._exit(1)")
    assert tool.main([], book=tmp_path) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("failed: 02-two.md, cell [2] ('import os; os._exit(1)'): DeadKernel")
    assert not (tmp_path / "02-two.ipynb").exists()


def test_an_interrupted_write_leaves_the_old_notebook(small, monkeypatch):
    before = small.read_bytes()

    def fail(*args):
        raise OSError(28, "no space left")

    monkeypatch.setattr(tool.os, "replace", fail)
    with pytest.raises(tool.ChapterError, match=r"07-small\.ipynb was not written: no space left"):
        tool.write(nbformat.v4.new_notebook(), small)
    assert not differences(small.read_bytes(), before)
    assert sorted(path.name for path in small.parent.iterdir()) == ["07-small.ipynb", "07-small.md"]


def test_an_unknown_chapter_is_answered_with_those_there_are(tmp_path, capsys):
    chapter(tmp_path, "02-two", "x = 3")
    assert tool.main(["02", "11"], book=tmp_path) == 2
    assert capsys.readouterr().err == "no chapter '11'; there are: 02-two\n"
    assert not (tmp_path / "02-two.ipynb").exists()


@pytest.fixture
def executed(monkeypatch):
    """Names of the chapters that would have been executed."""
    names = []

    def record(notebook, name, root):
        names.append(name)
        return 3.0, None

    monkeypatch.setattr(tool, "execute", record)
    return names


def package(root, **files):
    folder = root / "transformer_lit"
    folder.mkdir(exist_ok=True)
    for name, text in {"__init__": "", **files}.items():
        (folder / f"{name}.py").write_text(text)


def test_only_what_changed_is_executed(tmp_path, executed):
    def run(*arguments):
        executed.clear()
        assert tool.main(list(arguments), book=tmp_path, root=tmp_path) == 0
        return list(executed)

    package(tmp_path, lower="x = 2", upper="from transformer_lit.lower import x", other="")
    chapter(tmp_path, "02-two", "from transformer_lit import lower")
    chapter(tmp_path, "03-three", "import transformer_lit.upper as up")
    chapter(tmp_path, "05-five", "from transformer_lit import other")
    assert run() == ["02-two", "03-three", "05-five"]
    assert run() == []
    assert run("5") == ["05-five"]
    assert run("--all") == ["02-two", "03-three", "05-five"]
    package(tmp_path, lower="x = 3")
    assert run() == ["02-two", "03-three"]
    package(tmp_path, upper="from transformer_lit.lower import x  # more")
    assert run() == ["03-three"]
    chapter(tmp_path, "05-five", "from transformer_lit import other", "1 + 1")
    assert run() == ["05-five"]
    (tmp_path / "05-five.ipynb").unlink()
    assert run() == ["05-five"]


def test_a_chapter_stands_on_all_it_reaches_by_imports(tmp_path):
    package(
        tmp_path,
        near="def f():\n    from . import far\n    from .deep.down import g",
        far="TABLE = 'far.csv'\nTEXT = 'no-such.csv'",
        unused="",
    )
    folder = tmp_path / "transformer_lit"
    (folder / "far.csv").write_text("a,b")
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("STYLE = 'base.css'")
    for name in ("down.py", "down.js", "base.css", "other.js"):
        (folder / "deep" / name).write_text("")
    (folder / "deep" / "down.py").write_text("from .. import top")
    (folder / "top.py").write_text("import torch")
    source = chapter(
        tmp_path,
        "02-two",
        "try:\n    import transformer_lit\nexcept ImportError:\n    %pip install transformer-lit",
        "import numpy\nfrom transformer_lit import near, VERSION",
    )
    files = tool.stands_on(tool.read_chapter(source), tmp_path)
    names = [path.relative_to(folder).as_posix() for path in files]
    assert names == [
        "__init__.py", "deep/__init__.py", "deep/base.css", "deep/down.js", "deep/down.py",
        "far.csv", "far.py", "near.py", "top.py",
    ]  # fmt: skip
    before = tool.fingerprint(source, tmp_path)
    (folder / "unused.py").write_text("x = 1")
    assert tool.fingerprint(source, tmp_path) == before
    (folder / "deep" / "down.js").write_text("export default {}")
    assert tool.fingerprint(source, tmp_path) != before


def nbval(notebook):
    """Numbers of the code cells, from 0, that fail when nbval compares as `make test` does."""
    command = [
        "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider",
        "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg"),
    ]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(
        [sys.executable, *command, "-q", "-rfE", "--color=no", notebook.name],
        cwd=notebook.parent, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return [int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", result.stdout, re.M)]


def test_nbval_compares_text_streams_markdown_and_the_texts_of_figures(tmp_path):
    cells = [
        "6 * 7",
        "print('six')",
        "import sys\nprint('seven', file=sys.stderr)",
        "from IPython.display import Markdown\nMarkdown('**eight**')",
        "import matplotlib.pyplot as plt\nfrom transformer_lit import figures\n"
        "figures.use_style()\nplt.plot([2, 3, 5], label='primes')\nplt.legend()\nplt.show()",
        "import ipywidgets\nipywidgets.IntSlider()",
        "2 + 1",
        "print(4)",
        "x = 9",
        "y = 9",
        "plt.plot([2, 3, 5])\nplt.show()",
    ]
    assert tool.main([], book=chapter(tmp_path, "02-two", *cells).parent) == 0
    target = tmp_path / "02-two.ipynb"
    assert nbval(target) == []

    notebook = nbformat.read(target, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].outputs[0].data["text/plain"] = "43"
    code[1].outputs[0].text = "sixty\n"
    code[2].outputs[0].text = "seventy\n"
    code[3].outputs[0].data["text/markdown"] = "**eighty**"
    svg = code[4].outputs[0].data["image/svg+xml"]
    assert "<!-- primes -->" in svg
    code[4].outputs[0].data["image/svg+xml"] = svg.replace("<!-- primes -->", "<!-- squares -->")
    view = code[5].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    view["model_id"] = "another"  # not compared: it is random in every new run
    code[6].outputs = []
    code[7].outputs[0].text = "5\n"
    code[7].metadata["tags"] = ["nbval-ignore-output"]
    # Without an output there is nothing to compare: only an assert can fail.
    code[8].source = "x = 9\nassert x == 9"
    code[9].source = "y = 9\nassert y == 8"
    # Of a figure the texts are compared, not the coordinates: their last digits may differ.
    drawing = code[10].outputs[0].data["image/svg+xml"]
    moved = re.sub(r"\bL (\d+)\.\d", r"L \1.7", drawing)
    assert moved != drawing
    code[10].outputs[0].data["image/svg+xml"] = moved
    nbformat.write(notebook, target)
    assert nbval(target) == [0, 1, 2, 3, 4, 6, 9]


# ---- the chapters -----------------------------------------------------------------------------

chapters = pytest.mark.parametrize("name", CHAPTERS)


def read(name):
    path = BOOK / f"{name}.ipynb"
    assert path.exists(), f"{name}.md has no executed notebook: run `make notebooks`"
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def mimes(cell):
    return {mime for output in cell.outputs for mime in output.get("data", {})}


def test_every_chapter_has_its_executed_notebook():
    executed = sorted(path.stem for path in BOOK.glob("*.ipynb"))
    assert executed == CHAPTERS
    assert "04-self-attention" in CHAPTERS


@chapters
def test_source_and_executed_notebook_say_the_same(name):
    source, executed = tool.read_chapter(BOOK / f"{name}.md"), read(name)
    kept = executed.metadata["transformer_lit"]
    assert source.cells[0].source.count("<!-- times -->") == 1
    assert kept["reading_minutes"] == tool.reading_minutes(source)
    tool.put_times(source, kept["reading_minutes"], kept["running_seconds"])
    assert len(source.cells) == len(executed.cells)
    for wanted, found in zip(source.cells, executed.cells, strict=True):
        assert found.cell_type == wanted.cell_type
        assert found.source == wanted.source
        assert found.metadata == wanted.metadata
        assert found.id == wanted.id


@chapters
def test_the_executed_notebook_is_of_the_present_text_and_modules(name):
    kept = read(name).metadata["transformer_lit"]
    current = tool.fingerprint(BOOK / f"{name}.md")
    assert kept["source"] == current, f"{name} or a module it imports changed: run `make notebooks`"


@chapters
def test_every_cell_was_executed_in_order_without_error_or_warning(name):
    for number, cell in enumerate(code_cells(read(name)), start=1):
        assert cell.execution_count == number
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\nwrote: {output.text}"


@chapters
def test_no_path_or_address_of_the_machine_is_left(name):
    text = (BOOK / f"{name}.ipynb").read_text()
    places = r"/home/|/root/|/Users/|/tmp/|/usr/|site-packages|ipykernel_\d|[A-Z]:\\\\"
    found = re.search(rf".{{0,60}}({places}|{re.escape(str(ROOT))}).{{0,60}}", text)
    assert not found, found.group()
    address = re.search(r".{0,60} at 0x[0-9a-f]{6,}.{0,20}", text)
    assert not address, address.group()


@chapters
def test_the_set_up_makes_the_chapter_self_sufficient(name):
    first = code_cells(read(name))[0]
    assert first.source.startswith(
        "try:\n"
        "    import transformer_lit\n"
        "except ImportError:  # in Colab, install the package first\n"
        f'    %pip install -q "transformer-lit[data] @ git+{REPOSITORY}"\n'
        "\n"
    )
    assert "hide-input" in first.metadata.get("tags", [])
    assert "figures.use_style()" in first.source


@chapters
def test_one_cell_holds_the_parameters(name):
    tagged = [
        cell for cell in code_cells(read(name)) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert tagged == [code_cells(read(name))[1]]
    lines = tagged[0].source.splitlines()
    names = []
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        assert type(ast.literal_eval(statement.value)) in (int, float, bool, str)
        assert "  # " in lines[statement.end_lineno - 1], f"no comment: {lines[0]}"
        names.append(statement.targets[0].id)
    assert "seed" in names


@chapters
def test_a_chapter_runs_in_90_seconds_at_the_most(name):
    assert 5 <= read(name).metadata["transformer_lit"]["running_seconds"] <= 90


@chapters
def test_a_chapter_needs_less_than_4_gigabytes(name):
    assert 0 < read(name).metadata["transformer_lit"].get("peak_gigabytes", 1) < 4


@chapters
def test_every_figure_has_a_text_for_the_blind_and_a_caption(name):
    for cell in code_cells(read(name)):
        if mimes(cell) & {"image/svg+xml", "image/png", "image/jpeg"}:
            settings = cell.metadata.get("mystnb", {})
            alt = settings.get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"no alt text: {cell.source}"
            figure = settings.get("figure", {})
            assert len(figure.get("caption", "").split()) >= 5, f"no caption: {cell.source}"
            assert re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")), cell.source


@chapters
def test_figures_are_svg_which_nbval_compares(name):
    for cell in code_cells(read(name)):
        assert not mimes(cell) & {"image/png", "image/jpeg"}, cell.source


@chapters
def test_the_text_before_a_figure_names_it(name):
    cells = read(name).cells
    for before, cell in itertools.pairwise(cells):
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            assert f"{{numref}}`{figure['name']}`" in before.source, figure["name"]


def test_names_of_figures_are_unique_in_the_book():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for name in CHAPTERS
        for cell in code_cells(read(name))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names))


@chapters
def test_prose_stands_between_every_two_code_cells(name):
    cells = read(name).cells
    for before, after in itertools.pairwise(cells):
        pair = {before.cell_type, after.cell_type}
        assert pair != {"code"}, f"no prose before: {after.source}"
        assert after.source.strip()


@chapters
def test_a_chapter_has_15_to_25_code_cells_before_the_exercises_and_1500_to_3000_words(name):
    cells = read(name).cells
    (end,) = [
        number
        for number, cell in enumerate(cells)
        if cell.cell_type == "markdown" and re.search(r"^## Exercises$", cell.source, re.M)
    ]
    before = sum(cell.cell_type == "code" for cell in cells[:end])
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert 15 <= before <= 25, f"{before} code cells before the exercises"
    assert 1500 <= words <= 3000, f"{words} words"


@chapters
def test_no_cell_hides_its_result_with_a_semicolon(name):
    # Jupyter then shows nothing, nbval still sees the value: it executes without history.
    for cell in code_cells(read(name)):
        assert not cell.source.rstrip().endswith(";"), cell.source


def test_a_chapter_executed_twice_gives_the_same_bytes(tmp_path):
    assert CHAPTERS, "there is no chapter yet"
    quickest = min(
        CHAPTERS, key=lambda name: (read(name).metadata["transformer_lit"]["running_seconds"], name)
    )
    shutil.copy(BOOK / f"{quickest}.md", tmp_path)
    target = tmp_path / f"{quickest}.ipynb"
    assert tool.main(["--all"], book=tmp_path) == 0
    first = target.read_bytes()
    assert tool.main(["--all"], book=tmp_path) == 0
    assert not differences(target.read_bytes(), first)
