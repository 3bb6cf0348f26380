"""The command `transformer-lit`: list the chapters, run one with parameters of your own."""

import ast
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import click


def fail(message: str, status: int = 2) -> NoReturn:
    """Say in one line what was wrong, and end."""
    click.echo(" ".join(message.split()), err=True)
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
                if isinstance(line, ast.Assign):
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
    """Run the chapters of The Literate Transformer."""


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
