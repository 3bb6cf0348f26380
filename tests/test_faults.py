"""What goes wrong on real machines: a kill, a full disk, a tree that may only be read, no network.

The disk is a real one, of 64 kilobytes, and the tree is really mounted so that nobody can write to
it: both in a namespace of their own, which only Linux has.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_notebooks import chapter

ROOT = Path(__file__).parents[1]
TOOL = "from tests.browser import load_tool; tool = load_tool('notebooks')"
RUN = "from transformer_lit.cli import main; main(['run', '1'])"
PATIENCE = 120  # seconds, on a busy machine


@pytest.fixture
def namespace():
    """Runs a shell script as root of its own mounts; skipped where the system forbids that."""

    def run(script, *arguments, cwd=ROOT):
        command = ["unshare", "--map-root-user", "--mount", "sh", "-euc", script, "sh", *arguments]
        return subprocess.run(
            list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
        )

    allowed = shutil.which("unshare") and run("mount -t tmpfs none /mnt").returncode == 0
    if not allowed:
        missing = "this system does not let us mount anything in a namespace of our own"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return run


# --- killed ------------------------------------------------------------------------------------


def until(condition, message):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def test_killed_in_mid_run_no_notebook_is_half_written_and_the_next_run_goes_on(tmp_path):
    book, flag = tmp_path / "book", tmp_path / "pid of the kernel"
    book.mkdir()
    chapter(book, "01-one", "x = 3")
    waits = (
        f"import os, pathlib, time\nflag = pathlib.Path({str(flag)!r})\nwait = not flag.exists()"
    )
    waits += "\nflag.write_text(str(os.getpid()))\ntime.sleep(600 * wait)"
    chapter(book, "02-two", waits)
    command = [sys.executable, "-c", f"{TOOL}; tool.main([], book=tool.Path({str(book)!r}))"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        until(lambda: flag.exists() and flag.read_text(), "the second chapter did not begin")
        running.send_signal(signal.SIGKILL)
    assert sorted(path.name for path in book.iterdir()) == [
        "01-one.ipynb",
        "01-one.md",
        "02-two.md",
    ]
    kernel = Path("/proc", flag.read_text())
    until(lambda: not kernel.exists(), "its kernel runs on")
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert [line[:12] for line in again.stdout.splitlines()] == ["02-two.ipynb"]
    assert (book / "02-two.ipynb").exists()


# --- a full disk -------------------------------------------------------------------------------

SMALL_DISK = 'mount -t tmpfs -o size=64k none "$1"; "$2" -c "$3" "$1"'

NOTEBOOK_ON_FULL_DISK = f"""
import sys
from tests.test_notebooks import chapter
{TOOL}
book = tool.Path(sys.argv[1])
chapter(book, "02-two", "x = 3")
assert tool.main([], book=book) == 0
before = (book / "02-two.ipynb").read_bytes()
chapter(book, "02-two", "x = 5")
try:
    (book / "filler").write_bytes(bytes(10**6))
except OSError:
    pass
assert tool.main([], book=book) == 1
assert (book / "02-two.ipynb").read_bytes() == before
assert sorted(path.name for path in book.iterdir()) == ["02-two.ipynb", "02-two.md", "filler"]
(book / "filler").unlink()
assert tool.main([], book=book) == 0
assert (book / "02-two.ipynb").read_bytes() != before
"""

RUNS_ON_FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, "experiments")
from saved_runs import write_whole
file = Path(sys.argv[1], "state.safetensors")
write_whole(file, b"old" * 1000)
try:
    write_whole(file, bytes(10**6))
except OSError as error:
    print(error, file=sys.stderr)
assert file.read_bytes() == b"old" * 1000
assert [path.name for path in file.parent.iterdir()] == [file.name]
"""


def test_on_a_full_disk_the_old_notebook_stays_and_it_is_said_why(namespace, tmp_path):
    done = namespace(SMALL_DISK, tmp_path, sys.executable, NOTEBOOK_ON_FULL_DISK)
    assert done.returncode == 0, done.stderr
    assert "failed: 02-two.ipynb was not written: No space left on device" in done.stderr


def test_on_a_full_disk_a_run_keeps_its_last_state_and_says_why(namespace, tmp_path):
    done = namespace(SMALL_DISK, tmp_path, sys.executable, RUNS_ON_FULL_DISK)
    assert done.returncode == 0, done.stderr
    assert "No space left on device: the old file is as it was" in done.stderr
    assert str(tmp_path / "state.safetensors") in done.stderr


# --- a tree that may only be read, no network --------------------------------------------------


def test_a_chapter_runs_from_a_tree_that_may_only_be_read(namespace, tmp_path):
    read_only = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; cd "$2"; '
    read_only += '! touch "$1/new" 2>/dev/null; PYTHONPATH=$1 "$3" -c "$4"'
    done = namespace(read_only, ROOT, tmp_path, sys.executable, RUN)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["01-symbols-as-vectors.ipynb"]


def test_where_nothing_may_be_written_the_pipeline_says_so(namespace, tmp_path):
    chapter(tmp_path, "02-two", "x = 3")
    read_only = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; "$2" -c "$3" "$1"'
    run = f"import sys; {TOOL}; sys.exit(tool.main([], book=tool.Path(sys.argv[1])))"
    done = namespace(read_only, tmp_path, sys.executable, run)
    assert done.returncode == 1
    assert done.stderr.endswith("failed: 02-two.ipynb was not written: Read-only file system\n"), (
        done.stderr
    )


def test_a_chapter_runs_without_a_network(namespace, tmp_path):
    alone = [sys.executable, str(ROOT / "tests" / "without_network.py")]
    ask = "import urllib.request; urllib.request.urlopen('http://192.0.2.1', timeout=10)"
    asked = subprocess.run([*alone, sys.executable, "-c", ask], capture_output=True, text=True)
    assert "Network is unreachable" in asked.stderr
    done = subprocess.run(
        [*alone, sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
