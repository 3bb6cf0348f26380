"""Time one attention layer with each way to tell positions, beside adding sinusoids.

    python benchmarks/positions.py

The layer and the count of memory are those of `experiments/position_costs.py`, whose numbers
chapter 07 shows. Here the methods take turns, on all threads.
"""

from measure import arguments, in_turns, ratios, report, spread
from position_costs import ABSOLUTE, BATCH, D_MODEL, LENGTHS, N_HEADS, RELATIVE, bytes_alive, step

BASE = "sinusoidal"


def measure(length: int, rounds: int) -> list[dict[str, object]]:
    """Make a row for each method, with ratios to sinusoids."""
    methods = (*ABSOLUTE, *RELATIVE)
    rows = [{"n": length, "method": method} for method in methods]
    for training, heading in ((False, "forward"), (True, "forward and backward")):
        runs = {method: step(method, length, training) for method in methods}
        times = in_turns(runs, rounds)
        for row in rows:
            row[heading] = spread(ratios(times, row["method"], BASE))
    memory = {method: bytes_alive(run) for method, run in runs.items()}
    for row in rows:
        row["memory"] = memory[row["method"]] / memory[BASE]
    return rows


def main():
    """Measure, print the table and save it."""
    given = arguments("Time one attention layer with each way to tell positions.", rounds=15)
    lengths = (7, 11) if given.tiny else LENGTHS
    rows = [row for length in lengths for row in measure(length, given.rounds)]
    sizes = {"batch": BATCH, "d_model": D_MODEL, "n_heads": N_HEADS}
    report(given, "positions", rows, sizes=sizes)


if __name__ == "__main__":
    main()
