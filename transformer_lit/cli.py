"""The command `transformer-lit`: list the chapters, run one, show progress, read words aloud."""

import ast
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

import click

AT_ONCE = 1000  # words of standard input

# How a verdict begins, the best last: `transformer_lit.exercises` writes them.
VERDICTS = {"Not yet: ": "not yet", "Not quite: ": "wrong", "Correct.": "done"}
STATES = ["not run", *VERDICTS.values()]


def complain(message: str) -> None:
    """Say in one line what was wrong."""
    click.echo(" ".join(message.split()), err=True)


def fail(message: str, status: int = 2) -> NoReturn:
    """Say in one line what was wrong, and end."""
    complain(message)
    sys.exit(status)


def chapters() -> dict[str, Path]:
    """Chapter names and their executed notebooks, in order.

    They lie inside an installed package, or beside the package in a copy of the repository.
    """
    package = Path(__file__).parent
    inside, beside = package / "book", package.parent / "book"
    book = inside if inside.is_dir() else beside
    return {path.stem: path for path in sorted(book.glob("[0-9][0-9]-*.ipynb"))}


def find(chapter: str) -> Path:
    """The notebook of a chapter given as 04, 4 or 04-self-attention."""
    there = chapters()
    for name, path in there.items():
        if chapter in (name, name[:2], name[:2].lstrip("0")):
            return path
    fail(f"no chapter {chapter!r}; there are: {', '.join(there) or 'none'}")


def parameters(notebook: dict) -> dict[str, object]:
    """Names and values of the literals in the cell tagged `parameters`."""
    found = {}
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            for line in ast.parse("".join(cell["source"])).body:
                if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                    found[line.targets[0].id] = ast.literal_eval(line.value)
    return found


def convert(text: str, default: object) -> object:
    """Read a value of the default's type; a whole number will do for a float.

    Raises:
        ValueError: the text is no such value.
    """
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (SyntaxError, ValueError):
        value = None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ValueError(f"expected a value of type {type(default).__name__}, got {text!r}")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transformer-lit")
def main() -> None:
    """Run the chapters of The Literate Transformer, and its pronouncer."""


@main.command("list")
def list_chapters() -> None:
    """List the chapters with the time they take to read and to run."""
    for name, path in chapters().items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        times = notebook["metadata"].get("transformer_lit", {})
        text = "".join(notebook["cells"][0]["source"])
        title = text.splitlines()[0].lstrip("# ")
        reading, running = times.get("reading_minutes", "?"), times.get("running_seconds", "?")
        click.echo(f"{name[:2]}  {title:<40}  read {reading:>3} min  run {running:>3} s")


@main.command()
@click.argument("chapter")
@click.option(
    "-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter; repeatable."
)
@click.option(
    "--out",
    default="runs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the result; an earlier result of the chapter there is replaced.",
)
def run(chapter: str, given: tuple[tuple[str, str], ...], out: Path) -> None:
    """Execute CHAPTER (04, 4 or 04-self-attention), with parameters of your own.

    For example: transformer-lit run 04 -p seed 3
    """
    source = find(chapter)
    defaults = parameters(json.loads(source.read_text(encoding="utf-8")))
    known = ", ".join(f"{name} = {value!r}" for name, value in defaults.items())
    values = {}
    for name, text in given:
        if name not in defaults:
            fail(f"{source.stem} has no parameter {name!r}; it has: {known}")
        try:
            values[name] = convert(text, defaults[name])
        except ValueError as error:
            fail(f"parameter {name!r} of {source.stem}: {error}; it has: {known}")
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError:
        fail("running a chapter needs papermill: pip install 'transformer-lit[book]'")

    # Of two kernels called python3, the one of this environment: it has this package.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    target = out / source.name
    try:
        out.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(
            source,
            target,
            parameters=values,
            kernel_name="python3",
            progress_bar=True,
            extra_arguments=["--log-level=ERROR"],
        )
    except papermill.PapermillExecutionError as error:
        where = f"cell [{error.exec_count}] ({error.source.strip().splitlines()[0]!r})"
        fail(f"{source.stem}, {where}: {error.ename}: {error.evalue}; see {target}", 1)
    except DeadKernelError as error:
        fail(f"{source.stem}: {error}; see {target}", 1)
    except OSError as error:
        fail(f"cannot write to {out}: {error.strerror}")
    click.echo(target)


def answer_cells(notebook: dict) -> Iterator[tuple[str, list[dict]]]:
    """Title and code cells of each exercise with a check, without the cells of its solution."""
    found, cells = [], []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cells.append(cell)
        elif cell["cell_type"] == "markdown":
            for kind, title in re.findall(r"^:::\{(exercise|solution)-start\} *(.*)$", text, re.M):
                cells = []
                if kind == "exercise":
                    found.append((title, cells))
    for title, cells in found:
        if any(re.search(r"\bcheck\.\w", "".join(cell["source"])) for cell in cells):
            yield title, cells


def verdict(cell: dict) -> tuple[str, str]:
    """What the outputs of a cell say of the answer, and the hint if it is wrong."""
    for output in reversed(cell["outputs"]):
        if output["output_type"] == "error":
            what = f"the cell raised {output['ename']}: {output['evalue']}"
            return "wrong", " ".join(what.split())
        text = output.get("text", output.get("data", {}).get("text/plain", ""))
        for line in reversed("".join(text).splitlines()):
            for start, state in VERDICTS.items():
                if line.startswith(start):
                    return state, line.removeprefix(start) if state == "wrong" else ""
    return "not run", ""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def progress(file: Path) -> None:
    """Show which exercises of the notebook FILE, as you saved it, are done.

    Each is done, wrong (with the hint), not yet (nothing was filled in) or not run. That is read
    from the outputs of your cells, not from those of the solutions; nothing is run.

    For example: transformer-lit progress 04-self-attention.ipynb
    """
    rows = []
    try:
        notebook = json.loads(file.read_text(encoding="utf-8-sig"))
        for title, cells in answer_cells(notebook):
            # Of several cells the best counts, and of equals the last.
            verdicts = map(verdict, reversed(cells))
            rows.append((title, *max(verdicts, key=lambda one: STATES.index(one[0]))))
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError):
        fail(f"{file} is not a notebook")
    if not rows:
        fail(f"{file} has no exercises with a check")
    for title, state, hint in rows:
        click.echo(f"{state:<7}  {title}" + (f": {hint}" if hint else ""))
    done = sum(state == "done" for _, state, _ in rows)
    click.echo(f"{done} of {len(rows)} done")


def portions(words: tuple[str, ...]) -> Iterator[list[str]]:
    """The words given, or those of standard input, so many at a time as are read together."""
    if words:
        yield list(words)
        return
    # Whoever types wants an answer to each line.
    typed = sys.stdin.isatty()
    if typed:
        click.echo("Words, please; an end of file (Ctrl-D) ends.", err=True)
    # What is no text becomes a letter that the pronouncer does not know.
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[union-attr]
    found = (line.split() for line in sys.stdin)
    if typed:
        yield from found
        return
    all_words = (word for line in found for word in line)
    while portion := list(islice(all_words, AT_ONCE)):
        yield portion


def readable(pronouncer, words: Iterable[str]) -> list[str]:
    """The words that the pronouncer can read; of the others it is said why not."""
    good = []
    for word in words:
        try:
            pronouncer.check(word)
        except ValueError as error:
            complain(str(error))
        else:
            good.append(word)
    return good


def answer(pronouncer, word: str, hypothesis) -> str:
    """Word, phonemes, probability of the whole, probability of each: with tabs between."""
    sounds = pronouncer.phonemes.decode(hypothesis.tokens)
    each = hypothesis.log_probs[: len(sounds)].exp().tolist()
    fields = (
        word,
        " ".join(sounds),
        f"{math.exp(hypothesis.log_prob):.3f}",
        " ".join(f"{probability:.3f}" for probability in each),
    )
    return "\t".join(fields)


def draw_attention(pronouncer, word: str, hypothesis, file: Path) -> None:
    """Draw which letters each phoneme looked at when it was written, the heads averaged."""
    import matplotlib
    import torch

    matplotlib.use("agg")
    from transformer_lit import figures
    from transformer_lit.encoder_decoder import BEGIN_ID

    begin = hypothesis.tokens.new_tensor([BEGIN_ID])
    # The last symbol has shown nothing to anyone yet, unless the stop token followed.
    shown = hypothesis.tokens if hypothesis.stopped else hypothesis.tokens[:-1]
    written = torch.cat([begin, shown])[None]
    with torch.no_grad():
        blocks = pronouncer.model.attention(pronouncer.encode([word]), written)
    rows = [*pronouncer.phonemes.decode(hypothesis.tokens), "stop"][: written.shape[1]]
    letters, n = list(word.lower()), len(blocks)
    figures.use_style()
    size = {"width": n * (0.8 + 0.45 * len(letters)), "height": 1.2 + 0.4 * len(rows)}
    figure, axes = figures.new(**size, columns=n)
    for i, (ax, weights) in enumerate(zip(axes.flat if n > 1 else [axes], blocks, strict=True)):
        mean = weights[0].mean(0)
        figures.heatmap(ax, mean, rows=rows, columns=letters, numbers=False, low=0.0, high=1.0)
        ax.set_xlabel(f"block {i + 1}")
    metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
    figure.savefig(file, metadata=metadata)


@main.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    "--beam",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="How many beginnings are kept; with 1, the likeliest phoneme is taken each time.",
)
@click.option(
    "--attention",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw which letters each phoneme of the one WORD looked at (.svg or .png).",
)
def pronounce(words: tuple[str, ...], beam: int, attention: Path | None) -> None:
    """Read English words aloud: letters in, phonemes out.

    Without a WORD, words are read from standard input, with spaces or line ends between them.

    Each is answered by a line: the word, its phonemes, the probability of the whole with its end,
    the probability of each phoneme; tabs stand between. Words that are too long or have letters
    other than a to z and the apostrophe are named on standard error, and the exit status is 2; the
    others are answered.

    For example: transformer-lit pronounce phone city
    """
    if attention and attention.suffix.lower() not in (".svg", ".png"):
        fail(f"--attention draws .svg or .png, got {attention.name!r}")
    if attention and len(words) != 1:
        fail(f"--attention draws one word, got {len(words)}")
    from transformer_lit import checkpoints

    try:
        pronouncer = checkpoints.load_pronouncer(checkpoints.PRONOUNCER)
    except (OSError, ValueError) as error:
        fail(str(error))
    refused = False
    for portion in portions(words):
        good = readable(pronouncer, portion)
        refused |= len(good) < len(portion)
        if not good:
            continue
        hypotheses = pronouncer.pronounce(good, n_beams=beam)
        for word, hypothesis in zip(good, hypotheses, strict=True):
            click.echo(answer(pronouncer, word, hypothesis))
        if attention:
            try:
                draw_attention(pronouncer, good[0], hypotheses[0], attention)
            except OSError as error:
                fail(f"cannot write {attention}: {error.strerror}")
    if refused:
        sys.exit(2)
