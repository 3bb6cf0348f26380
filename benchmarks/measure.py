"""Compare times on a machine that is never quite quiet: in turns, as ratios, round by round."""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from tqdm import tqdm


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """Read the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each is timed")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {given.rounds}")
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


def ratios(times: dict[str, list[float]], name: str) -> tuple[float, float, float]:
    """Give the quartiles of how many times as long as ours one took, compared within each round."""
    pairs = zip(times[name], times["ours"], strict=True)
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4, method="inclusive")
    return middle, low, high


def table(title: str, times: dict[str, list[float]], sizes: dict[str, int]) -> str:
    """Write the ratios as a table in Markdown.

    Args:
        title: what was measured.
        times: the seconds of each round, ours among them.
        sizes: how many numbers each model learns.
    """
    lines = [
        f"{title}; {len(times['ours'])} rounds",
        "",
        "| | parameters | times as long as ours: median | middle half of the rounds |",
        "|---|---|---|---|",
    ]
    for name in times:
        middle, low, high = ratios(times, name)
        lines.append(f"| {name} | {sizes[name]:,} | {middle:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def versions(*packages: str) -> str:
    """Name the versions and the threads that a table belongs to."""
    named = [f"Python {platform.python_version()}"]
    named += [f"{package} {version(package)}" for package in packages]
    return ", ".join(named) + f"; {torch.get_num_threads()} threads"
