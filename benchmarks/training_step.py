"""Time a training step of four implementations of one model.

    python benchmarks/training_step.py

A step is the forward pass, the cross-entropy, the backward pass and Adam, in single precision on
the CPU. Data, loss and optimiser are the same for all.
"""

from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import arguments, compare, in_turns, report
from models import MODELS, TINY, Sizes, parameters
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID

BATCH = 32


def batch(s: Sizes, size: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Draw sources, targets and labels; as long as they can be, so that no time goes to padding."""
    source, labels = torch.randint(STOP_ID + 1, s.vocab_size, (2, size, s.seq))
    target = torch.cat([torch.full((size, 1), BEGIN_ID), labels[:, :-1]], 1)
    return source, target, labels


def step(model: nn.Module, source: Tensor, target: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a function that trains ``model`` for one step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run():
        logits = model(source, target)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def main():
    """Measure, print the table and save it."""
    given = arguments("Time a training step of four implementations of one model.", rounds=15)
    sizes = TINY if given.tiny else Sizes()
    torch.manual_seed(0)
    data = batch(sizes)
    models = {name: make(sizes).train() for name, make in MODELS.items()}
    times = in_turns({name: step(model, *data) for name, model in models.items()}, given.rounds)
    learned = {name: parameters(model) for name, model in models.items()}
    rows = compare(times, [*models][1:], more={"parameters": learned})
    packages = ["x-transformers", "transformers"]
    report(given, "training_step", rows, sizes={"batch": BATCH} | asdict(sizes), packages=packages)


if __name__ == "__main__":
    main()
