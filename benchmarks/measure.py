"""Compare times on a machine that is never quite quiet: in turns, as ratios, round by round.

What a script has measured it prints, and saves in `results/` with all that belongs to it: sizes,
rounds, versions, machine. `book/measured.md` shows these files, in the same tables.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "experiments"))  # where position_costs.py lies, which some share
RESULTS = ROOT / "benchmarks" / "results"
BEST = "best of the others"  # not a column: this row is set in bold


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """Read the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each is timed")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    saved = "the folder of the result: benchmarks/results, or none with --tiny"
    parser.add_argument("--save-in", type=Path, metavar="FOLDER", help=saved)
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {given.rounds}")
    if given.save_in is None and not given.tiny:
        given.save_in = RESULTS
    return given


def in_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each run once per round, in seconds; the order is drawn anew for each round.

    One round more comes first and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for i in tqdm(range(rounds + 1), unit="round"):
        random.Random(i).shuffle(names)
        for name in names:
            start = time.perf_counter()
            runs[name]()
            if i > 0:
                times[name].append(time.perf_counter() - start)
    return times


def spread(values: Iterable[float]) -> dict[str, float]:
    """Give the median, and the two values that the middle half lies between."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    found = {"median": median, "low": low, "high": high}
    return {name: float(f"{x:.4g}") for name, x in found.items()}


def ratios(times: dict[str, list[float]], name: str, base: str = "ours") -> list[float]:
    """Say how many times as long as the base one took, compared within each round."""
    return [a / b for a, b in zip(times[name], times[base], strict=True)]


def compare(
    times: dict[str, list[float]],
    others: Sequence[str],
    *,
    where: dict[str, object] | None = None,
    more: dict[str, dict[str, object]] | None = None,
) -> list[dict[str, object]]:
    """Make a row for each run: its time, and how many times as long as ours it took.

    Args:
        times: the seconds of each round, ours among them.
        others: other people's implementations; the quickest of them is marked.
        where: columns that are the same in all rows.
        more: columns that are not: for each heading the value of each run.
    """
    rows = []
    for name, measured in times.items():
        row = {**(where or {}), "implementation": name}
        row |= {heading: values[name] for heading, values in (more or {}).items()}
        row["milliseconds"] = spread([1000 * seconds for seconds in measured])
        row["times as long as ours"] = spread(ratios(times, name))
        rows.append(row)
    best = min(others, key=lambda name: statistics.median(ratios(times, name)))
    next(row for row in rows if row["implementation"] == best)[BEST] = True
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Write rows as a table in Markdown; a median has the middle half of the rounds behind it."""
    headings = [heading for heading in rows[0] if heading != BEST]
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        cells = [cell(row[heading]) for heading in headings]
        lines.append([f"**{text}**" for text in cells] if row.get(BEST) else cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """Write a value of a row."""
    if isinstance(value, dict):
        return "{median} ({low} to {high})".format(**{k: number(x) for k, x in value.items()})
    if isinstance(value, list):
        return " · ".join(map(cell, value))
    return value if isinstance(value, str) else number(value)


def number(x: float) -> str:
    """Write a number with as many decimals as say something."""
    if isinstance(x, int):
        return f"{x:,}"
    return f"{x:,.{2 if abs(x) < 10 else 1 if abs(x) < 100 else 0}f}"


def conditions(result: dict) -> str:
    """Say under which conditions a result was measured."""
    sizes = ", ".join(f"{name} {cell(value)}" for name, value in result["sizes"].items())
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    machine = "{processor}, {cores} cores, {threads} threads".format(**result["machine"])
    measured = f"{result['rounds']} rounds; {versions}; {machine}"
    return f"{sizes}; {measured}" if sizes else measured


def report(
    given: argparse.Namespace,
    name: str,
    rows: list[dict[str, object]],
    *,
    sizes: dict[str, object],
    packages: Sequence[str] = (),
) -> None:
    """Print what was measured, and save it.

    Args:
        given: the command line.
        name: that of the script, and of the file.
        rows: what was measured.
        sizes: of what it was measured.
        packages: those that took part, beside PyTorch.
    """
    result = {
        "sizes": sizes,
        "rounds": given.rounds,
        "versions": {"Python": platform.python_version()}
        | {package: version(package) for package in ("torch", *packages)},
        "machine": machine(),
        "rows": rows,
    }
    print(f"{table(rows)}\n\n{conditions(result)}")
    if given.save_in is not None:
        given.save_in.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (given.save_in / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def load(name: str, folder: Path = RESULTS) -> dict:
    """Read a result.

    Raises:
        FileNotFoundError: nobody has measured it; the message says how.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no result {path.name}: `python benchmarks/{name}.py` makes it"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def machine() -> dict[str, object]:
    """Name the processor and say how much of it was used."""
    import torch  # here, so that what only reads results need not wait for it

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """Name the processor, as well as the system knows it."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
