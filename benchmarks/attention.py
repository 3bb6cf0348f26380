"""Time one attention layer forward and backward, and count the memory it takes.

    python benchmarks/attention.py

Ours, fused and explicit, beside x-transformers with flash attention and PyTorch's own layer, each
looking back only. Ours is also timed with a mask, which the kernel applies to what it has computed.
Vectors go in and vectors come out: a layer that wants a mask has to make it, in its own time and
memory. Memory is the most that tensors made on the way take at one time, without the buffers that a
kernel makes and frees inside itself.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from x_transformers.x_transformers import Attention

from measure import arguments, compare, in_turns, report
from position_costs import bytes_alive
from transformer_lit.masking import causal_mask, forbidden
from transformer_lit.multi_head import MultiHeadAttention

BATCH, N_HEADS, D_HEAD = 8, 8, 32
D_MODEL = N_HEADS * D_HEAD
LENGTHS = (128, 256, 512, 1024, 2048)
OTHERS = ("x-transformers, flash", "torch.nn.MultiheadAttention")


class Torch(nn.Module):
    """PyTorch's layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(D_MODEL, N_HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the vectors."""
        mask = forbidden(causal_mask(x.shape[1]))[0, 0]
        return self.layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]


class Ours(nn.Module):
    """Our layer: fused, told by a mask what may not be seen, or in its explicit form."""

    def __init__(self, *, d_model: int = D_MODEL, n_heads: int = N_HEADS, form: str = "fused"):
        super().__init__()
        self.layer = MultiHeadAttention(d_model=d_model, n_heads=n_heads)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Mix the vectors."""
        if self.form == "masked":
            return self.layer(x, mask=causal_mask(x.shape[1]))[0]
        return self.layer(x, causal=True, need_weights=self.form == "explicit")[0]


def layers() -> dict[str, nn.Module]:
    """Make all of them."""
    flash, torchs = OTHERS
    return {
        "ours": Ours(),
        flash: Attention(D_MODEL, heads=N_HEADS, dim_head=D_HEAD, causal=True, flash=True),
        torchs: Torch(),
        "ours, with a mask": Ours(form="masked"),
        "ours, explicit": Ours(form="explicit"),
    }


def step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that runs a layer forward and backward, down to its input."""
    x = x.clone().requires_grad_()
    above = torch.randn_like(x)

    def run():
        for tensor in (x, *layer.parameters()):
            tensor.grad = None
        layer(x).backward(above)

    return run


def main():
    """Measure, print the table and save it."""
    given = arguments("Time one attention layer beside those of others.", rounds=11)
    torch.manual_seed(0)
    rows = []
    for n in (7, 11) if given.tiny else LENGTHS:
        x = torch.randn(BATCH, n, D_MODEL)
        runs = {name: step(layer, x) for name, layer in layers().items()}
        memory = {name: bytes_alive(run) / 2**20 for name, run in runs.items()}
        times = in_turns(runs, given.rounds)
        rows += compare(times, OTHERS, where={"n": n}, more={"MiB": memory})
    sizes = {"batch": BATCH, "n_heads": N_HEADS, "d_head": D_HEAD}
    report(given, "attention", rows, sizes=sizes, packages=["x-transformers"])


if __name__ == "__main__":
    main()
