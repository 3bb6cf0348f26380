"""Every explorable live in a real JupyterLab: it shows, a key moves it, and Python has the value.

One server, one small notebook, all explorables. The server has settings and kernels of its own,
and the page asks no other host for anything.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from typing import NamedTuple

import nbformat
import pytest
from playwright import sync_api

from tests.browser import Visit
from tests.explorables import ARGUMENTS, classes

PATIENCE = 120  # seconds, for each step on a busy machine; all of them together take a few
HELD = "held.json"  # what Python holds, written by the notebook


class Move(NamedTuple):
    """A key that is pressed in an explorable.

    Args:
        control: what has the focus then, as a CSS selector.
        key: the key.
        trait: what Python holds.
        before: what it holds before the key is pressed.
        after: what it holds after it.
    """

    control: str
    key: str
    trait: str
    before: object
    after: object


# Most of the keys are ones that JupyterLab has a use for too: arrows go from cell to cell.
MOVES = {
    "ALiBiExplorable": Move(".head", "ArrowDown", "head", 2, 1),
    "AtOnceExplorable": Move(".steps input", "ArrowUp", "step", 1, 2),
    "AttentionExplorable": Move(
        "[aria-label='b, y']", "ArrowDown", "vectors[1]", [1.5, 1], [1.5, 0.9]
    ),
    "DecodingExplorable": Move(".on", "Enter", "step", 1, 2),
    "HeadsExplorable": Move("input:checked", "ArrowUp", "head", 2, 1),
    "MaskingExplorable": Move(
        "tbody button", "Space", "mask[0]", [True, True, True], [False, True, True]
    ),
    "PositionsExplorable": Move("select", "ArrowDown", "d_model", 64, 128),
    "RoPEExplorable": Move(".k", "ArrowRight", "key_place", 0, 1),
}


def write_notebook(path):
    """Imports, a cell for each explorable, and one that writes down what all of them hold.

    It does so again whenever Python hears of a change, into a file that is always whole.
    """
    imports = ["import json, pathlib", "from transformer_lit.checkpoints import load_pronouncer"]
    imports += [f"from {kind.__module__} import {name}" for name, kind in classes().items()]
    shown = [
        f"{name.lower()} = {name}({ARGUMENTS[name]})\n{name.lower()}.add_class({name!r})"
        for name in MOVES
    ]
    values = ", ".join(f"{name!r}: {name.lower()}.{move.trait}" for name, move in MOVES.items())
    write = ["def write(change=None):", f"    values = {{{values}}}"]
    write += ["    pathlib.Path('new').write_text(json.dumps(values))"]
    write += [f"    pathlib.Path('new').replace({HELD!r})", ""]
    write += [*(f"{name.lower()}.observe(write)" for name in MOVES), "write()"]
    sources = ["\n".join(imports), *shown, "\n".join(write)]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab that has read no settings and asks nobody for news: its address and folder."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "moves.ipynb")
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(tmp_path / name) for name in homes}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += ["--allow-root", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | own) as server,
    ):
        started = tmp_path / "JUPYTER_RUNTIME_DIR" / f"jpserver-{server.pid}.json"
        deadline = time.monotonic() + PATIENCE
        try:
            while not started.exists() or not started.read_text().endswith("}"):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield json.loads(started.read_text())["url"], folder
        finally:
            server.terminate()


def test_every_explorable_is_live(chromium, lab):
    assert set(MOVES) == set(classes())
    address, folder = lab
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        own = (address, address.replace("http", "ws"), "blob:", "data:")
        visited = Visit(context.new_page(), own)
        page = visited.page
        page.set_default_timeout(1000 * PATIENCE)
        # Told to run before it has heard of its kernel, JupyterLab asks which one to take.
        page.add_locator_handler(
            page.locator("dialog", has_text="Select Kernel"),
            lambda dialog: dialog.locator(".jp-mod-accept").click(),
        )
        page.goto(f"{address}lab/tree/moves.ipynb")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
        # While the page is still being put together, a click may come to nothing.
        begun = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[[*\d]")).first
        for _ in range(10):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            with contextlib.suppress(sync_api.TimeoutError):
                begun.wait_for(timeout=5000)
                break

        def hears(expected):
            deadline = time.monotonic() + PATIENCE
            held = None
            while held != expected and time.monotonic() < deadline:
                page.wait_for_timeout(50)  # milliseconds, in which the page's events are heard
                file = folder / HELD
                held = json.loads(file.read_text()) if file.exists() else None
            outputs = page.locator(".jp-OutputArea-output").all_inner_texts()
            assert held == expected, outputs
            return True

        expected = {name: move.before for name, move in MOVES.items()}
        assert hears(expected)
        for name, move in MOVES.items():
            control = page.locator(f".{name} .explorable").locator(move.control).first
            control.scroll_into_view_if_needed()
            control.press(move.key)
            expected[name] = move.after
            assert hears(expected)
        assert not visited.problems
