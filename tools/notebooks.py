"""Execute the chapters: book/NN-name.md in, book/NN-name.ipynb with its outputs out.

    python tools/notebooks.py            what changed: a chapter's text, or a module it stands on
    python tools/notebooks.py 04 05      these chapters, changed or not
    python tools/notebooks.py --all      every chapter
    python tools/notebooks.py --retime   and write the running time measured now

Executed twice, a chapter gives the same bytes. So cell ids follow from the position, the ids of
widgets from the order in which they were made, no timing is stored, and the running time on the
page changes only when a new measurement is far from it: more than twice or less than half, and
more than 10 seconds away. The memory changes only when a new one is a quarter of a GB away.

Kept in the notebook's metadata, under `transformer_lit`:

- `reading_minutes`: words of prose / 200 + lines of code / 20, rounded up;
- `running_seconds`: the time its cells took, rounded up to a multiple of 5;
- `peak_gigabytes`: the most memory its kernel held, rounded up to a tenth (Linux only);
- `source`: a sha256 of the chapter's text and of every file of `transformer_lit` it stands on.

A chapter that raises ends the run with exit status 1 and leaves the old notebook as it was.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "transformer_lit"
TIMES = "<!-- times -->"
CELL_TIMEOUT = 600

# Without the version: the notebook must not change with the interpreter's patch release.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


class ChapterError(Exception):
    """A chapter that did not run to its end, or was not written."""


class ThisInterpreter(KernelSpecManager):
    """Gives the kernel of the interpreter that runs this file, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name):
        """Return this interpreter's kernel under any name."""
        return self.kernel_spec_class(resource_dir=str(RESOURCES), **get_kernel_dict())


def environment(root: Path, ipython_dir: str) -> dict[str, str]:
    """The kernel's environment: this tree's package, two threads, no GPU, no personal settings."""
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    paths = [str(root), *filter(None, [env.get("PYTHONPATH")])]
    return env | {
        "CUDA_VISIBLE_DEVICES": "",
        "IPYTHONDIR": ipython_dir,
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def read_chapter(source: Path) -> nbformat.NotebookNode:
    """Read a chapter's text as a notebook without outputs; cell ids follow from the position."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC})
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem[:2]}-{index:03d}"
    return notebook


# ---- what a chapter stands on -----------------------------------------------------------------


def parse_cell(code: str) -> ast.Module:
    """Parse a code cell, lines of IPython's own (`%pip`, `!ls`) left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE))


def imports(tree: ast.Module, package: str = "") -> set[str]:
    """Names of the modules of `transformer_lit` that a parsed file imports, at any depth.

    `package` is the package that the file is in, for its relative imports. From `from a import b`
    come both `a` and `a.b`: whether `b` is a module is decided by whether it has a file.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == PACKAGE}


def module_file(name: str, root: Path) -> Path | None:
    """Where a module's source is; None for a name that is no module."""
    path = root.joinpath(*name.split("."))
    if path.is_dir():
        path = path / "__init__.py"
        return path if path.exists() else None
    path = path.with_suffix(".py")
    return path if path.exists() else None


def companions(path: Path, tree: ast.Module) -> set[Path]:
    """A module and the files that go with it: of its name (the script of an explorable), or named
    in one of its strings (a table).
    """
    found = {file for file in path.parent.glob(f"{path.stem}.*") if file.suffix != ".pyc"}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"[\w./-]{1,100}\.\w{1,20}", text):
            found.add(path.parent / text)
    return {file for file in found if file.is_file()}


def stands_on(notebook: nbformat.NotebookNode, root: Path = ROOT) -> list[Path]:
    """Every file of `transformer_lit` that a chapter's code reaches by imports, sorted."""
    todo = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            todo |= imports(parse_cell(cell.source))
    seen, files = set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name:
            todo.add(name.rpartition(".")[0])
        path = module_file(name, root)
        if path is None:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        files |= companions(path, tree)
        todo |= imports(tree, package)
    return sorted(files)


def fingerprint(source: Path, root: Path = ROOT) -> str:
    """The sha256 of a chapter's text and of all it stands on."""
    digest = hashlib.sha256()
    for path in [source, *stands_on(read_chapter(source), root)]:
        name = path.name if path == source else path.relative_to(root).as_posix()
        data = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


# ---- times ------------------------------------------------------------------------------------


def reading_minutes(notebook: nbformat.NotebookNode) -> int:
    """Minutes to read a chapter: words of prose / 200 + lines of code / 20, rounded up.

    Words are counted outside of fences, comments and lines of directives; of the code, the lines
    that are shown and not empty.
    """
    words = lines = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if not {"hide-input", "remove-input"} & set(cell.metadata.get("tags", [])):
                lines += sum(bool(line.strip()) for line in cell.source.splitlines())
        else:
            text = re.sub(r"<!--.*?-->", "", cell.source, flags=re.DOTALL)
            text = re.sub(r"^(`{3,}).*?^\1`*$", "", text, flags=re.DOTALL | re.MULTILINE)
            text = re.sub(r"^\s*:.*$", "", text, flags=re.MULTILINE)
            words += len(re.findall(r"\w[\w'’-]*", text))
    return math.ceil(words / 200 + lines / 20)


def settle(measured: float, recorded: int | None) -> int:
    """Seconds to write down: the recorded ones if the measurement agrees with them roughly."""
    if recorded and (recorded / 2 <= measured <= 2 * recorded or abs(measured - recorded) <= 10):
        return recorded
    return max(5, 5 * math.ceil(measured / 5))


def settle_memory(measured: float | None, recorded: float | None) -> float | None:
    """Gigabytes to write down: the recorded ones if the measurement agrees, or there is none."""
    if measured is None or (recorded and abs(measured - recorded) <= 0.25):
        return recorded
    return math.ceil(10 * measured) / 10


def times_line(reading: int, running: int) -> str:
    """The sentence that stands for the marker in the executed notebook."""
    minutes = "minute" if reading == 1 else "minutes"
    return f"**Reading:** {reading} {minutes}. **Running:** {running} seconds on two cores."


def put_times(notebook: nbformat.NotebookNode, reading: int, running: int) -> None:
    """Replace the marker line in the first cell of text."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            pattern = rf"^{re.escape(TIMES)}[ \t]*$"
            cell.source = re.sub(
                pattern, times_line(reading, running), cell.source, flags=re.MULTILINE
            )
            return


# ---- execution --------------------------------------------------------------------------------


def peak_gigabytes(pid: int) -> float | None:
    """The most memory (10^9 bytes) a process has held so far; None where Linux doesn't tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(found[1]) * 1024 / 1e9 if found else None


def execute(
    notebook: nbformat.NotebookNode, name: str, root: Path = ROOT
) -> tuple[float, float | None]:
    """Execute a notebook in place, in an empty folder.

    Returns:
        The seconds its cells took, and the most gigabytes its kernel held, if that is known.

    Raises:
        ChapterError: a cell raised, ran too long or ended the kernel; names chapter and cell.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    current = None
    started = ended = 0.0
    peak = None

    def start(notebook):
        nonlocal started
        started = time.perf_counter()

    def enter(cell, cell_index):
        nonlocal current
        current = cell

    def leave(cell, cell_index, execute_reply):
        nonlocal ended, peak
        ended = time.perf_counter()
        peak = peak_gigabytes(client.km.provisioner.pid)
        bar.update()

    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as ipython_dir,
        tqdm(total=len(cells), desc=name, unit="cell") as bar,
    ):
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_spec_manager=ThisInterpreter()),
            timeout=CELL_TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # no warning that sockets are local and plain
            resources={"metadata": {"path": folder}},
            on_notebook_start=start,
            on_cell_execute=enter,
            on_cell_executed=leave,
        )
        client.owns_km = True  # so that it ends the kernel it was given
        try:
            client.execute(env=environment(root, ipython_dir))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            if isinstance(error, CellExecutionError):
                message = f"{error.ename}: {error.evalue}"
            else:
                message = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            where = ""
            if current is not None:
                number = next(i for i, cell in enumerate(cells, 1) if cell is current)
                where = f", cell [{number}] ({current.source.strip().splitlines()[0]!r})"
            raise ChapterError(f"{name}.md{where}: {message}") from None
        return ended - started, peak


def tidy(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Take out of an executed notebook what differs from run to run; return it tidied."""
    notebook.metadata.language_info = nbformat.from_dict(LANGUAGE_INFO)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":  # a cell tagged raises-exception; no paths of ours
                output.traceback = [f"{output.ename}: {output.evalue}"]
    key = "application/vnd.jupyter.widget-state+json"
    state = notebook.metadata.get("widgets", {}).get(key, {}).get("state", {})
    for model in state.values():
        model.get("buffers", []).sort(key=lambda buffer: buffer["path"])
    # A model's id is random and stands in the state, in views and in other models' states alike.
    text = json.dumps(notebook)
    for number, model_id in enumerate(state):
        text = text.replace(model_id, f"{name}-widget-{number:02d}")
    return nbformat.from_dict(json.loads(text))


def write(notebook: nbformat.NotebookNode, target: Path) -> None:
    """Write a notebook at once or not at all.

    Raises:
        ChapterError: it could not be written (the disk is full, or may only be read).
    """
    nbformat.validate(notebook)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, target)
    except OSError as error:
        raise ChapterError(f"{target.name} was not written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def record(target: Path) -> dict:
    """What a notebook's metadata keep about it; empty if there is no such notebook yet."""
    if not target.exists():
        return {}
    return dict(nbformat.read(target, as_version=4).metadata.get(PACKAGE, {}))


def build(source: Path, root: Path = ROOT, retime: bool = False) -> float:
    """Execute one chapter and write its notebook beside it; return the seconds its cells took.

    Raises:
        ChapterError: see `execute`; the notebook that was there stays as it was.
    """
    target = source.with_suffix(".ipynb")
    before = record(target)
    notebook = read_chapter(source)
    print_of_source = fingerprint(source, root)
    reading = reading_minutes(notebook)
    measured, peak = execute(notebook, source.stem, root)
    running = settle(measured, None if retime else before.get("running_seconds"))
    memory = settle_memory(peak, before.get("peak_gigabytes"))
    put_times(notebook, reading, running)
    notebook.metadata[PACKAGE] = {
        "reading_minutes": reading,
        "running_seconds": running,
        **({"peak_gigabytes": memory} if memory else {}),
        "source": print_of_source,
    }
    write(tidy(notebook, source.stem), target)
    return measured


def main(argv: list[str] | None = None, book: Path = ROOT / "book", root: Path = ROOT) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="NN", help="04, 4 or 04-self-attention")
    parser.add_argument("--all", action="store_true", help="every chapter, changed or not")
    parser.add_argument("--retime", action="store_true", help="write the time measured now")
    options = parser.parse_args(argv)

    there = {path.stem: path for path in sorted(book.glob("[0-9][0-9]-*.md"))}
    chosen = []
    for asked in options.chapters:
        found = [
            path for name, path in there.items() if asked in (name, name[:2], name[:2].lstrip("0"))
        ]
        if not found:
            print(f"no chapter {asked!r}; there are: {', '.join(there)}", file=sys.stderr)
            return 2
        chosen += found
    if not chosen:
        chosen = [
            path
            for path in there.values()
            if options.all
            or record(path.with_suffix(".ipynb")).get("source") != fingerprint(path, root)
        ]
        if not chosen:
            print("nothing changed: every notebook is up to date")
    for path in chosen:
        try:
            measured = build(path, root, options.retime)
        except ChapterError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        written = record(path.with_suffix(".ipynb"))["running_seconds"]
        print(f"{path.stem}.ipynb: took {measured:.1f} s, says {written} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
