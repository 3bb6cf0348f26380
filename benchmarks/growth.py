"""Time how a training step, decoding and one attention layer of ours grow, one size at a time.

    python benchmarks/growth.py

The other sizes stay as they are, but the heads, which stay as wide as they are, become more with
the width, and the feed-forward network grows with it. In each round a line is fitted to the
logarithms of sizes and times. Its slope is the exponent: 1 where twice the size takes twice the
time, 2 where it takes four times as long.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

import attention
import greedy_decoding
import training_step
from measure import arguments, in_turns, report, spread
from models import Sizes, ours
from transformer_lit.encoder_decoder import STOP_ID

BATCH = 8
BASE = Sizes(vocab_size=500, d_model=128, n_heads=4, n_layers=2, d_ff=512, seq=64)
GROWN = {"n": [64, 128, 256, 512], "d_model": [64, 128, 256, 512], "n_layers": [1, 2, 4, 8]}
FEW = {"n": [5, 7], "d_model": [32, 64], "n_layers": [1, 2]}


def sized(size: str, value: int) -> Sizes:
    """Change one of the sizes, and what belongs to it."""
    if size == "n":
        return replace(BASE, seq=value)
    if size == "d_model":
        return replace(BASE, d_model=value, n_heads=value // 32, d_ff=4 * value)
    return replace(BASE, n_layers=value)


def train(s: Sizes) -> Callable[[], object]:
    """Make a training step."""
    return training_step.step(ours(s).train(), *training_step.batch(s, BATCH))


def decode(s: Sizes) -> Callable[[], object]:
    """Make a run of greedy decoding."""
    model = greedy_decoding.never_stops(ours(s).eval())
    source = torch.randint(STOP_ID + 1, s.vocab_size, (BATCH, s.seq))
    return lambda: greedy_decoding.write_ours(model, source, s.seq)


def attend(s: Sizes) -> Callable[[], object]:
    """Make one layer's way forward and backward."""
    layer = attention.Ours(d_model=s.d_model, n_heads=s.n_heads)
    return attention.step(layer, torch.randn(BATCH, s.seq, s.d_model))


RUNS = {"training step": train, "greedy decoding": decode, "attention layer": attend}


def exponents(times: dict[int, list[float]]) -> list[float]:
    """Fit, for each round, the power of the size that the time grows with."""
    logs = [math.log(size) for size in times]
    return [
        statistics.linear_regression(logs, [math.log(t) for t in of_round]).slope
        for of_round in zip(*times.values(), strict=True)
    ]


def main():
    """Measure, print the table and save it."""
    given = arguments("Time how the training step, decoding and attention grow.", rounds=11)
    torch.manual_seed(0)
    rows = []
    for what, make in RUNS.items():
        for size, values in (FEW if given.tiny else GROWN).items():
            if (what, size) == ("attention layer", "n_layers"):
                continue
            times = in_turns({value: make(sized(size, value)) for value in values}, given.rounds)
            milliseconds = [spread(1000 * t for t in times[value])["median"] for value in values]
            grown = {"sizes": list(values), "milliseconds": milliseconds}
            rows.append(
                {"what": what, "grows": size, **grown, "exponent": spread(exponents(times))}
            )
    report(given, "growth", rows, sizes={"batch": BATCH} | asdict(BASE))


if __name__ == "__main__":
    main()
