"""Run the chapters as Colab runs them: `.venv-colab/bin/python tools/colab.py [04 05]`.

`make colab` makes the environment that this file runs in, from tests/colab.txt: the versions of
Colab, without this package. Each notebook is copied alone into an empty folder and executed there.
Its first cell finds no `transformer_lit` and has pip install it from the repository's address, for
which git takes a clone of this checkout's last commit.

Two notebooks run at a time, each with one thread. Both workers have an environment of their own on
top of the shared one: what the first chapter adds to Colab's packages stays there, transformer-lit
is uninstalled after each.

A chapter fails

- if a cell raises,
- if a cell warns, or shows no text, figure or live widget where the stored notebook has one,
- if the package was not installed from that commit,
- if one of Colab's packages was replaced, which would need a restart there.

The digits of what is printed may be others: the chapters' asserts hold them in their bounds. Colab
has Python 3.12; this runs on the Python that made .venv.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "https://github.com/transformer-lit/transformer_lit"
PACKAGE = "transformer_lit"
PERSONAL = {"MPLBACKEND", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV"}
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
WORKERS = 2
CELL_TIMEOUT = 600


def output_of(*command: object, cwd: Path) -> str:
    """Run a command that has to succeed; return what it printed, without the last line's end."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.rstrip()


def snapshot(root: Path, clone: Path) -> str:
    """Make a repository of a checkout's last commit alone; return what the commit is called there.

    It is a commit without parents. A shallow clone would not do: pip asks git for a partial clone,
    and of a shallow one git 2.39 looks for the missing parent without end.

    Raises:
        subprocess.CalledProcessError: if the folder is no git repository, or has no commit.
    """
    tried = ["book", PACKAGE, "pyproject.toml"]
    if changes := output_of("git", "status", "--porcelain", "--", *tried, cwd=root):
        print(f"not committed, and so not tried:\n{changes}", file=sys.stderr)
    output_of("git", "clone", "--quiet", "--depth", "1", root.as_uri(), clone, cwd=root)
    author = ["-c", "user.name=colab", "-c", "user.email=colab@example.org"]
    tree = ["commit-tree", "-m", "The last commit", "HEAD^{tree}"]
    commit = output_of("git", *author, *tree, cwd=clone)
    output_of("git", "reset", "--quiet", "--soft", commit, cwd=clone)
    (clone / ".git" / "shallow").unlink(missing_ok=True)
    return commit


def packages(folder: Path) -> dict[str, Path]:
    """The installed packages of a site-packages folder: where each one's metadata are, by name."""
    return {path.name.split("-")[0].lower(): path for path in folder.glob("*.dist-info")}


def shown(notebook: dict) -> list[set[str]]:
    """What kinds of things each code cell shows; a warning is `stderr`, a dead widget nothing."""
    widgets = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kinds = []
    for cell in cells:
        kinds.append({output["name"] for output in cell["outputs"] if "name" in output})
        for data in (output.get("data", {}) for output in cell["outputs"]):
            alive = VIEW not in data or data[VIEW]["model_id"] in widgets
            kinds[-1] |= set(data) if alive else set(data) - {VIEW}
    return kinds


def differences(stored: dict, executed: dict) -> list[str]:
    """Say what is missing in an executed notebook, and what warned in it."""
    problems = []
    for number, (was, now) in enumerate(zip(shown(stored), shown(executed), strict=True), 1):
        problems += [f"cell [{number}] shows no {kind}" for kind in sorted(was - now)]
        if "stderr" in now - was:
            problems.append(f"cell [{number}] warns")
    return problems


class Worker:
    """An environment on top of the one that runs this file, and a kernel in it."""

    def __init__(self, folder: Path, clone: Path, commit: str):
        """Make both in a folder; `commit` is the only one of the clone."""
        self.commit = commit
        venv, kernel = folder / "venv", folder / "kernels" / "python3"
        self.python = venv / "bin" / "python"
        output_of(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
        self.below = Path(sysconfig.get_path("purelib"))
        self.above = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(venv)}))
        (self.above / "below.pth").write_text(f"{self.below}\n")
        kernel.mkdir(parents=True)
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))

        self.env = {name: value for name, value in os.environ.items() if name not in PERSONAL}
        number = int(self.env.get("GIT_CONFIG_COUNT", 0))
        self.env |= {
            "CUDA_VISIBLE_DEVICES": "",
            "GIT_CONFIG_COUNT": str(number + 1),
            f"GIT_CONFIG_KEY_{number}": f"url.{clone.as_uri()}.insteadOf",
            f"GIT_CONFIG_VALUE_{number}": ADDRESS,
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_PATH": str(folder),  # where a kernel is looked for first
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def try_chapter(self, source: Path) -> list[str]:
        """Execute a copy of a notebook, alone in an empty folder; return what is wrong with it."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shutil.copy(source, folder)
            command = [
                sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute",
                f"--ExecutePreprocessor.timeout={CELL_TIMEOUT}", "--output", "executed",
                source.name,
            ]  # fmt: skip
            done = subprocess.run(
                command, cwd=folder, env=self.env, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if done.returncode:
                message = done.stdout.rpartition("following cell:")[2].strip()
                problems = [re.sub(r"\x1b\[[\d;]*m", "", message)]  # IPython colours its errors
            else:
                stored, executed = source.read_text(), (folder / "executed.ipynb").read_text()
                problems = differences(json.loads(stored), json.loads(executed))
        return problems + self.clear()

    def clear(self) -> list[str]:
        """Uninstall the package; return what is wrong with what the first cell installed."""
        there = packages(self.above)
        replaced = sorted(set(there) & set(packages(self.below)))
        problems = [f"the first cell installed another {name}" for name in replaced]
        if PACKAGE not in there:
            return [*problems, "the first cell installed nothing"]
        origin = json.loads((there[PACKAGE] / "direct_url.json").read_text())
        if (origin["url"], origin["vcs_info"]["commit_id"]) != (ADDRESS, self.commit):
            problems.append(f"the first cell installed {origin}, not {self.commit}")
        remove = [self.python, "-m", "pip", "uninstall", "--quiet", "--yes", PACKAGE]
        subprocess.run(remove, env=self.env, check=True)
        return problems


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="NN", help="04; all without any")
    asked = set(parser.parse_args(argv).chapters)

    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        commit = snapshot(root, clone)
        there = {path.name[:2]: path for path in (clone / "book").glob("[0-9][0-9]-*.ipynb")}
        if asked - set(there):
            chapters = ", ".join(sorted(there))
            print(f"no chapter {min(asked - set(there))!r}; there are: {chapters}", file=sys.stderr)
            return 2

        mine = threading.local()  # each thread's worker

        def start() -> None:
            mine.worker = Worker(Path(tempfile.mkdtemp(dir=name)), clone, commit)

        def try_chapter(number: str) -> bool:
            begun = time.perf_counter()
            problems = mine.worker.try_chapter(there[number])
            line = f"{there[number].stem}: {time.perf_counter() - begun:.0f} s"
            print("\n".join([line, *problems]), flush=True)
            return not problems

        with ThreadPoolExecutor(WORKERS, initializer=start) as pool:
            passed = list(pool.map(try_chapter, sorted(asked or there)))
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
