"""The command `transformer-lit`."""

import json
import math
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner
from nbclient import NotebookClient

from tests.pronouncers import write_pronouncer
from transformer_lit import checkpoints, cli, figures
from transformer_lit.decoding import Hypothesis
from transformer_lit.encoder_decoder import BEGIN_ID

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


# ---- progress

BOOK = Path(__file__).parent.parent / "book"
CORRECT = "Correct."
NOT_YET = "Not yet: fill in the answer and run the cell again."


@pytest.mark.parametrize("name", sorted(path.name for path in BOOK.glob("[0-9]*.ipynb")))
def test_a_chapter_as_it_is_shipped_has_no_exercise_done(name):
    result = call("progress", str(BOOK / name))
    assert result.exit_code == 0, result.output
    *lines, last = result.stdout.splitlines()
    assert lines and all(line.startswith("not yet  ") for line in lines), "a solution was counted"
    assert last == f"0 of {len(lines)} done"


def test_the_progress_is_that_of_the_answers_a_reader_has_run(tmp_path):
    notebook = nbformat.read(BOOK / "01-symbols-as-vectors.ipynb", as_version=4)
    first, second, third = (
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "..." in cell.source.split()
    )
    start = "from transformer_lit.exercises import vocabulary as check\n"
    written = {
        first: start + "check.distance(0.707)",
        second: "def real_max(values, lengths):\n"
        "    rows = zip(values, lengths, strict=True)\n"
        "    return torch.stack([row[:length].amax(0) for row, length in rows])\n"
        "import torch\ncheck.real_max(real_max)",
        third: "check.pad(my_pad)",
    }
    client = NotebookClient(notebook, kernel_name="python3", allow_errors=True)
    with client.setup_kernel():
        for number, source in written.items():
            notebook.cells[number].source = source
            client.execute_cell(notebook.cells[number], number)
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    result = call("progress", str(tmp_path / "mine.ipynb"))
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "wrong    Predict: cat and cut: each word has three letters, not two.\n"
        "done     Modify: from mean to maximum\n"
        "wrong    Build: your own pad: the cell raised NameError: name 'my_pad' is not defined\n"
        "1 of 3 done\n"
    )


def write_exercise(path, *cells, solution=CORRECT):
    """A notebook of one exercise, its answer cells given by what each shows."""
    v4 = nbformat.v4

    def code(*outputs):
        made = [
            output
            if isinstance(output, dict)
            else v4.new_output("execute_result", {"text/plain": output})
            for output in outputs
        ]
        return v4.new_code_cell("check.one(answer)", outputs=made)

    notebook = v4.new_notebook(
        cells=[
            code(CORRECT),
            v4.new_markdown_cell(":::{exercise-start} One\n:label: ex-one\n:::\n\nA task."),
            *(code(*outputs) for outputs in cells),
            v4.new_markdown_cell(":::{exercise-end}\n:::\n\n:::{solution-start} ex-one\n:::"),
            code(solution),
            v4.new_markdown_cell(
                ":::{solution-end}\n:::\n\n:::{exercise-start} Proof\n:label: ex-proof\n:::"
            ),
            v4.new_code_cell("1 + 1"),
            v4.new_markdown_cell(":::{exercise-end}\n:::\n\n:::{solution-start} ex-proof\n:::"),
            code(CORRECT),
        ]
    )
    nbformat.write(notebook, path)
    return path


def stream(text):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ([[NOT_YET]], "not yet  One"),
        ([[CORRECT]], "done     One"),
        ([["Not quite: mind the sign."]], "wrong    One: mind the sign."),
        ([[]], "not run  One"),
        ([["7"]], "not run  One"),
        ([[stream("Correct. I hope\nNot quite: 3\nbye\n")]], "wrong    One: 3"),
        ([[stream("a plot\n"), CORRECT, stream("the end\n")]], "done     One"),
        ([[CORRECT], [NOT_YET]], "done     One"),
        ([["Not quite: 3"], ["Not quite: 5"], []], "wrong    One: 5"),
        (
            [[CORRECT, nbformat.v4.new_output("error", ename="E", evalue="a\nb", traceback=[])]],
            "wrong    One: the cell raised E: a b",
        ),
    ],
)
def test_a_verdict_is_read_from_the_answer_wherever_it_is_shown(tmp_path, cells, line):
    result = call("progress", str(write_exercise(tmp_path / "x.ipynb", *cells)))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{line}\n{int('done' in line)} of 1 done\n"


def test_a_notebook_whose_texts_are_single_strings_is_read_too(tmp_path):
    path = write_exercise(tmp_path / "x.ipynb", [CORRECT])
    notebook = nbformat.read(path, as_version=4)
    path.write_text("\ufeff" + json.dumps(notebook), encoding="utf-8")  # nbformat splits into lines
    assert call("progress", str(path)).stdout == "done     One\n1 of 1 done\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read {}: No such file or directory\n"),
        (b"", "{} is not a notebook\n"),
        (b"# A title", "{} is not a notebook\n"),
        (b"\xff\xfe", "{} is not a notebook\n"),
        (b"[1, 2]", "{} is not a notebook\n"),
        (b'{"cells": 3}', "{} is not a notebook\n"),
        (b'{"cells": [{"cell_type": "code"}]}', "{} is not a notebook\n"),
        (b'{"cells": []}', "{} has no exercises with a check\n"),
    ],
)
def test_a_file_without_exercises_is_answered_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_bytes(content)
    result = call("progress", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == message.format(path)


def test_a_folder_is_no_notebook(tmp_path):
    result = call("progress", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, f"cannot read {tmp_path}: Is a directory\n")


# ---- pronounce


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A pronouncer of random weights in the place of the trained one."""
    path = write_pronouncer(tmp_path / "pronouncer.safetensors")
    monkeypatch.setattr(checkpoints, "PRONOUNCER", path)
    return checkpoints.load_pronouncer(path)


def command(*arguments, **more):
    """The command in a process of its own."""
    (path,) = Path(sys.executable).parent.glob("transformer-lit*")
    more = {"capture_output": True, "text": True, "encoding": "utf-8", **more}
    return subprocess.run([path, "pronounce", *arguments], **more)


def first_fields(text):
    return [line.split("\t")[0] for line in text.splitlines()]


def test_a_line_has_the_word_its_phonemes_and_their_probabilities(tiny):
    result = call("pronounce", "Ba'a", "c")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for line, word in zip(lines, ["Ba'a", "c"], strict=True):
        (hypothesis,) = tiny.pronounce([word])
        name, sounds, whole, each = line.split("\t")
        assert name == word
        assert sounds.split() == tiny.phonemes.decode(hypothesis.tokens)
        assert whole == f"{math.exp(hypothesis.log_prob):.3f}"
        shown = [float(text) for text in each.split()]
        assert shown == pytest.approx(
            hypothesis.log_probs[: len(hypothesis.tokens)].exp().tolist(), abs=6e-4
        )


def test_words_come_from_standard_input_when_none_are_given(tiny):
    text = "b  aa\n\n   \nabc\r\nb"
    result = CliRunner().invoke(cli.main, ["pronounce"], input=text)
    assert result.exit_code == 0, result.output
    assert first_fields(result.stdout) == ["b", "aa", "abc", "b"], "order, or empty lines"
    given = call("pronounce", "b", "aa", "abc", "b")
    assert given.stdout == result.stdout
    assert CliRunner().invoke(cli.main, ["pronounce", "b"], input=text).stdout == (
        given.stdout.splitlines()[0] + "\n"
    ), "words were given, and standard input was read all the same"


@pytest.mark.parametrize("text", ["", "\n\n \n"])
def test_no_words_at_all_are_no_error(tiny, text):
    result = CliRunner().invoke(cli.main, ["pronounce"], input=text)
    assert (result.exit_code, result.output) == (0, "")


def test_many_words_are_read_in_portions_and_answered_in_their_order(tiny, monkeypatch):
    monkeypatch.setattr(cli, "AT_ONCE", 3)
    words = [letter * n for n in (5, 1, 3) for letter in "abcd"]
    result = CliRunner().invoke(cli.main, ["pronounce"], input="\n".join(words))
    assert first_fields(result.stdout) == words
    assert result.stdout == call("pronounce", *words).stdout


def test_the_beam_is_handed_on(tiny, monkeypatch):
    widths, search = [], checkpoints.beam

    def watched(*arguments, n_beams, **more):
        widths.append(n_beams)
        return search(*arguments, n_beams=n_beams, **more)

    monkeypatch.setattr(checkpoints, "beam", watched)
    words = ["abc", "b", "cab"]
    result = call("pronounce", *words, "--beam", "3")
    wanted = tiny.pronounce(words, n_beams=3)
    for line, hypothesis in zip(result.stdout.splitlines(), wanted, strict=True):
        assert line.split("\t")[1].split() == tiny.phonemes.decode(hypothesis.tokens)
    assert widths == [3, 3]


@pytest.mark.parametrize("beam", ["0", "-1", "many"])
def test_a_beam_below_one_is_refused(tiny, beam):
    result = call("pronounce", "a", "--beam", beam)
    assert result.exit_code == 2 and not result.stdout
    assert "--beam" in result.stderr and beam in result.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("naïve", "'naïve': unknown letter 'ï'; the pronouncer knows a to z and the apostrophe\n"),
        ("x-2-", "'x-2-': unknown letter '-', '2'; the pronouncer knows a to z and the"),
        ("two words", "'two words': unknown letter ' '; the"),
        ("a\tb", r"'a\tb': unknown letter '\t'; the"),
        ("abcabcabcabc", "'abcabcabcabc' has 12 letters, the model reads 11\n"),
        ("", "an empty word has no pronunciation\n"),
    ],
)
def test_a_word_it_cannot_read_is_named_and_the_others_are_answered(tiny, word, message):
    result = call("pronounce", "ab", word, "ba", "--beam", "2")
    assert result.exit_code == 2
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1
    assert first_fields(result.stdout) == ["ab", "ba"]
    assert result.stdout == call("pronounce", "ab", "ba", "--beam", "2").stdout
    alone = call("pronounce", word)
    assert (alone.exit_code, alone.stdout, alone.stderr) == (2, "", result.stderr)


def test_bytes_that_are_no_text_are_letters_it_does_not_know(tiny):
    result = CliRunner().invoke(cli.main, ["pronounce"], input=b"\xef\xbb\xbfab\n\xff\nba\n")
    assert result.exit_code == 2
    assert first_fields(result.stdout) == ["ab", "ba"], "a byte order mark is no letter"
    assert result.stderr.startswith("'\N{REPLACEMENT CHARACTER}': unknown letter")


@pytest.mark.parametrize("suffix", [".svg", ".png", ".PNG"])
def test_the_attention_is_drawn(tiny, tmp_path, suffix):
    file = tmp_path / f"picture{suffix}"
    result = call("pronounce", "Ab'a", "--attention", str(file))
    assert result.exit_code == 0, result.output
    assert first_fields(result.stdout) == ["Ab'a"]
    start = b"<?xml" if suffix == ".svg" else b"\x89PNG"
    content = file.read_bytes()
    assert content.startswith(start)
    call("pronounce", "Ab'a", "--attention", str(file))
    assert file.read_bytes() == content, "drawn twice, not the same"


def test_the_picture_shows_what_the_model_says(tiny, tmp_path, monkeypatch):
    drawn = []

    def heatmap(ax, values, *, rows, columns, **more):
        drawn.append((torch.as_tensor(values), rows, columns))

    monkeypatch.setattr(figures, "heatmap", heatmap)
    (found,) = tiny.pronounce(["ab'a"])
    for n, stopped in ((3, True), (len(found.tokens), found.stopped), (11, False)):
        tokens = found.tokens[:1].repeat(n)
        hypothesis = Hypothesis(tokens, torch.zeros(n + stopped), stopped)
        drawn.clear()
        cli.draw_attention(tiny, "AB'a", hypothesis, tmp_path / "x.svg")
        assert len(drawn) == 2, "one panel for each block"
        seen = tokens if stopped else tokens[:-1]
        written = torch.cat([torch.tensor([BEGIN_ID]), seen])[None]
        wanted = tiny.model.attention(tiny.encode(["ab'a"]), written)
        for (values, rows, columns), weights in zip(drawn, wanted, strict=True):
            torch.testing.assert_close(values, weights[0].mean(0))
            torch.testing.assert_close(values.sum(1), torch.ones(len(rows)))
            assert columns == ["a", "b", "'", "a"]
            assert rows == tiny.phonemes.decode(tokens) + ["stop"] * stopped


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a", "--attention", "x.jpg"], "--attention draws .svg or .png, got 'x.jpg'\n"),
        (["a", "b", "--attention", "x.svg"], "--attention draws one word, got 2\n"),
        (["--attention", "x.svg"], "--attention draws one word, got 0\n"),
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_done(tiny, arguments, line):
    result = call("pronounce", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line)


def test_a_picture_that_cannot_be_written_or_has_no_word_is_answered_in_one_line(tiny, tmp_path):
    file = tmp_path / "nowhere" / "x.svg"
    result = call("pronounce", "a", "--attention", str(file))
    assert result.exit_code == 2 and first_fields(result.stdout) == ["a"]
    assert result.stderr == f"cannot write {file}: No such file or directory\n"
    result = call("pronounce", "é", "--attention", str(tmp_path / "x.svg"))
    assert result.exit_code == 2 and not (tmp_path / "x.svg").exists()


def test_a_checkpoint_that_is_missing_or_tampered_with_is_answered_in_one_line(tiny):
    path = checkpoints.PRONOUNCER
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = call("pronounce", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not the file that pronouncer.json describes" in result.stderr
    path.unlink()
    result = call("pronounce", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{path} is missing: install the package again" in result.stderr
    assert result.stderr.count("\n") == 1


def test_in_a_process_of_its_own_it_reads_aloud(tmp_path):
    words = "phone\n\nCity\nnaïve\nknight\n"
    result = command("--beam", "3", input=words)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("'naïve': unknown letter 'ï'")
    lines = dict(line.split("\t")[:2] for line in result.stdout.splitlines())
    assert list(lines) == ["phone", "City", "knight"]
    assert lines["phone"].startswith("F ") and lines["City"].startswith("S ")
    assert lines["knight"].startswith("N "), lines
    result = command("phone", "--attention", tmp_path / "phone.svg")
    assert result.returncode == 0 and result.stdout.startswith("phone\tF OW N\t"), result.stderr
    assert (tmp_path / "phone.svg").read_bytes().startswith(b"<?xml")


def test_a_reader_that_goes_away_is_no_error():
    (path,) = Path(sys.executable).parent.glob("transformer-lit*")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([path, "pronounce"], **pipes)
    process.stdout.close()
    process.stdin.write(b"phone\n" * 20)
    process.stdin.close()
    assert process.stderr.read() == b""
    process.wait()


def test_help_says_where_words_come_from():
    text = " ".join(call("pronounce", "--help").stdout.split())
    assert "words are read from standard input" in text and "exit status is 2" in text
