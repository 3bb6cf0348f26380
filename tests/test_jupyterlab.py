"""Every explorable live in a real JupyterLab: it shows, a key moves it, and Python reads the value.

One server, one small notebook, all explorables. The server has settings and kernels of its own,
and the page asks no other host for anything.
"""

import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

import nbformat
import pytest

from tests.browser import Visit
from tests.explorables import ARGUMENTS, classes

PATIENCE = 120  # seconds, for each step on a busy machine; all of them together take a few


class Move(NamedTuple):
    """A key that is pressed in an explorable.

    Args:
        control: what has the focus then, as a CSS selector.
        key: the key.
        trait: what Python reads.
        before: what it reads before the key is pressed.
        after: what it reads after it.
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
    """Imports, a cell for each explorable, and one that reads what all of them hold."""
    imports = ["import json", "from transformer_lit.checkpoints import load_pronouncer"]
    imports += [f"from {kind.__module__} import {name}" for name, kind in classes().items()]
    shown = [f"{name.lower()} = {name}({ARGUMENTS[name]})\n{name.lower()}" for name in MOVES]
    traits = [f"{name!r}: {name.lower()}.{move.trait}" for name, move in MOVES.items()]
    read = f"print(json.dumps({{{', '.join(traits)}}}))"
    cells = [nbformat.v4.new_code_cell(source) for source in ("\n".join(imports), *shown, read)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab that has read no settings and asks nobody for news."""
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
            yield json.loads(started.read_text())["url"]
        finally:
            server.terminate()


def test_every_explorable_is_live(chromium, lab):
    assert set(MOVES) == set(classes())
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        visited = Visit(context.new_page(), (lab, lab.replace("http", "ws"), "blob:", "data:"))
        page = visited.page
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"{lab}lab/tree/moves.ipynb")
        cells = page.locator(".jp-Notebook .jp-CodeCell")
        cells.nth(len(MOVES) + 1).wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

        *shown, reading = cells.all()[1:]
        runs = len(MOVES) + 2

        def read():
            reading.get_by_text(f"[{runs}]:", exact=True).wait_for()
            return json.loads(reading.locator(".jp-OutputArea-output").inner_text())

        assert read() == {name: move.before for name, move in MOVES.items()}
        for cell, move in zip(shown, MOVES.values(), strict=True):
            cell.scroll_into_view_if_needed()  # what is out of sight is not drawn yet
            control = cell.locator(".explorable").locator(move.control).first
            control.wait_for()
            control.focus()
            page.keyboard.press(move.key)

        expected = {name: move.after for name, move in MOVES.items()}
        deadline = time.monotonic() + PATIENCE
        while True:
            reading.locator(".cm-content").click()
            page.keyboard.press("Control+Enter")
            runs += 1
            values = read()
            # A kernel may hear of the last move later than of this cell: it has a thread for each.
            if values == expected or time.monotonic() > deadline:
                break
        assert values == expected
        assert not visited.problems
