"""Time imports, each in a fresh process.

    python benchmarks/import_time.py

All of them import PyTorch, so the row of PyTorch alone is what nobody can save.
"""

import subprocess
import sys

from measure import ROOT, arguments, compare, in_turns, report

IMPORTS = {
    "Python alone": "pass",
    "torch": "import torch",
    "ours": "import transformer_lit.encoder_decoder",
    "ours, transformer_lit.attention": "import transformer_lit.attention",
    "x-transformers": "import x_transformers",
    "Hugging Face Marian": "from transformers import MarianMTModel",
}


def start(line: str) -> None:
    """Run a line of Python in a process of its own."""
    subprocess.run([sys.executable, "-c", line], cwd=ROOT, check=True)


def main():
    """Measure, print the table and save it."""
    given = arguments("Time imports in fresh processes.", rounds=15)
    lines = dict.fromkeys(IMPORTS, "pass") if given.tiny else IMPORTS
    times = in_turns({name: lambda x=x: start(x) for name, x in lines.items()}, given.rounds)
    rows = compare(times, ["x-transformers", "Hugging Face Marian"])
    report(given, "import_time", rows, sizes={}, packages=["x-transformers", "transformers"])


if __name__ == "__main__":
    main()
