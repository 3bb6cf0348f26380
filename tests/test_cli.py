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
