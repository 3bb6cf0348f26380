"""Measure what each way to tell positions costs one attention layer, against adding sinusoids.

    python experiments/position_costs.py

writes `transformer_lit/data/curves/position_costs.json`, which chapter 07 shows: processor time on
one thread, the least of several runs, and the most bytes alive at once. It takes half a minute.
"""

import json
import platform
import time
import weakref
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.positions import LearnedPositions, SinusoidalPositions
from transformer_lit.relative_positions import T5, ALiBi, RoPE, Shaw, TransformerXL

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "position_costs.json"

BATCH, D_MODEL, N_HEADS = 2, 128, 4
D_HEAD = D_MODEL // N_HEADS
LENGTHS = (512, 1024)
ABSOLUTE = {
    "none": nn.Identity,
    "sinusoidal": lambda: SinusoidalPositions(d_model=D_MODEL, max_len=max(LENGTHS)),
    "learned": lambda: LearnedPositions(d_model=D_MODEL, max_len=max(LENGTHS)),
}
RELATIVE = {
    "Shaw": lambda: Shaw(d_head=D_HEAD, clip=16),
    "T5": lambda: T5(n_heads=N_HEADS, causal=True),
    "RoPE": lambda: RoPE(d_head=D_HEAD, layout="half-split"),
    "ALiBi": lambda: ALiBi(n_heads=N_HEADS),
    "Transformer-XL": lambda: TransformerXL(n_heads=N_HEADS, d_head=D_HEAD),
}


class BytesAlive(TorchDispatchMode):
    """Counts the bytes of all tensors made inside that are still in use, and the most there were.

    Buffers that a kernel makes and frees inside itself are not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the operation and note the memory of what it returns, once per storage."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return result

    def note(self, storage):
        """Count a storage until it is freed."""
        if id(storage) in self.seen:
            return
        size, key = storage.nbytes(), id(storage)
        self.now += size
        self.most = max(self.most, self.now)

        def freed(_):
            self.now -= size
            del self.seen[key]

        self.seen[key] = weakref.ref(storage, freed)


def step(method, length, training):
    """Return a function that runs the layer once, with its backward pass if training."""
    torch.manual_seed(0)
    absolute = ABSOLUTE.get(method, nn.Identity)()
    relative = RELATIVE[method]() if method in RELATIVE else None
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=N_HEADS, position=relative)
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    x = torch.randn(BATCH, length, D_MODEL, requires_grad=training)

    def run():
        with torch.set_grad_enabled(training):
            output, _ = layer(absolute(x), mask=mask)
            if training:
                for tensor in (x, *layer.parameters(), *absolute.parameters()):
                    tensor.grad = None
                output.sum().backward()

    return run


def seconds(run, repeats=7):
    """Measure the least processor time of several runs."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def bytes_alive(run):
    """Count the most bytes alive at once during a run."""
    with BytesAlive() as counter:
        run()
    return counter.most


def main():
    """Measure all methods and write the ratios to those of sinusoids."""
    torch.set_num_threads(1)
    ratios = []
    for training in (False, True):
        for length in LENGTHS:
            found = {}
            for method in tqdm((*ABSOLUTE, *RELATIVE), desc=f"{length}, training {training}"):
                found[method] = (
                    seconds(step(method, length, training)),
                    bytes_alive(step(method, length, training)),
                )
            base = found["sinusoidal"]
            ratios += [
                {
                    "method": method,
                    "length": length,
                    "training": training,
                    "time": round(of_time / base[0], 2),
                    "memory": round(of_bytes / base[1], 2),
                }
                for method, (of_time, of_bytes) in found.items()
            ]
    result = {
        "recipe": {
            "layer": "one MultiHeadAttention with a causal mask",
            "batch": BATCH,
            "d_model": D_MODEL,
            "n_heads": N_HEADS,
            "time": "processor time on one thread, the least of 7 runs",
            "memory": "most bytes of tensors alive at once, without kernels' own buffers",
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": "2 cores of an x86-64 CPU, of which one was used",
        "ratios": ratios,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
