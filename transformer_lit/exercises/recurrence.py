"""The checks of chapter 19, recurrence."""

import math

import torch
from torch import nn

from transformer_lit.exercises import Mistake, exercise


@exercise
def kept(answer):
    """Check a function from n, d and n_layers to the bytes an LSTM and a Transformer keep."""
    for n, d, n_layers in ((7, 5, 3), (1000, 64, 6), (1, 11, 2)):
        state, cache = 8 * d * n_layers, 8 * d * n_layers * n
        found = answer(n, d, n_layers)
        if not isinstance(found, tuple) or len(found) != 2:
            raise Mistake("return two numbers: of the LSTM, and of the Transformer.")
        found = tuple(int(number) for number in found)
        if found == (state, cache):
            continue
        hints = {
            (cache, state): "the LSTM comes first.",
            (state // 2, cache): "an LSTM keeps two vectors per layer, h and c.",
            (state, cache // 2): "a cache keeps two vectors per place and layer, key and value.",
            (
                state // 4,
                cache // 4,
            ): "a number in single precision has 4 bytes.",
            (state // n_layers, cache // n_layers): "each layer has a memory of its own.",
            (cache, cache): "the LSTM writes the new state over the old one.",
        }
        hint = f"for n {n}, d {d}, n_layers {n_layers} it is {(state, cache)}, got {found}."
        raise Mistake(hints.get(found, hint))


@exercise
def surely_gone(answer):
    """Check a function from s and eps to the steps after which a gradient is surely below eps."""
    for s, eps in ((0.9, 0.001), (0.5, 0.1), (0.7, 0.05)):
        right, found = math.floor(math.log(eps) / math.log(s)) + 1, answer(s, eps)
        if found == right:
            continue
        if isinstance(found, float) and math.isclose(found, math.log(eps) / math.log(s)):
            raise Mistake("that is where the bound equals eps. Return the first whole step below.")
        hints = {
            right - 1: "after so many steps the bound is not below eps yet.",
            right + 1: "one step earlier the bound is below eps already.",
            math.floor((1 - eps) / (1 - s)) + 1: "the factors multiply, one per step: s ** k.",
            math.floor(1 / (1 - s) * math.log(1 / eps)) + 1: "that takes log s for s - 1.",
        }
        hint = f"for s {s} and eps {eps} it is {right}, got {found}."
        raise Mistake(hints.get(found, hint))


@exercise
def gru(answer):
    """Check one step of a GRU against PyTorch's cell, with its weights."""
    d_model, d_state = 3, 5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = nn.GRUCell(d_model, d_state)
        x, h = torch.randn(2, d_model), torch.randn(2, d_state)
    with torch.no_grad():
        from_input = x @ cell.weight_ih.T + cell.bias_ih
        from_state = h @ cell.weight_hh.T + cell.bias_hh
        right = cell(x, h)
        found = answer(from_input.clone(), from_state.clone(), h.clone())
        if not isinstance(found, torch.Tensor) or found.shape != right.shape:
            raise Mistake(f"the new state should be a tensor of shape {tuple(right.shape)}.")
        if torch.allclose(found, right, atol=1e-5):
            return
        xr, xz, xn = from_input.chunk(3, -1)
        hr, hz, hn = from_state.chunk(3, -1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        n = (xn + r * hn).tanh()
        mistakes = {
            "z says how much of the old state stays: the two shares are swapped.": z * n
            + (1 - z) * h,
            "the reset gate is missing: r multiplies what comes from the state.": (1 - z)
            * (xn + hn).tanh()
            + z * h,
            "r multiplies what comes from the state only, not the input's part.": (1 - z)
            * (r * (xn + hn)).tanh()
            + z * h,
            "the candidate goes through a tanh.": (1 - z) * (xn + r * hn) + z * h,
            "the order of the parts is r, z, n: r and z are swapped.": (1 - r)
            * (xn + z * hn).tanh()
            + r * h,
            "the old state is missing from the result.": (1 - z) * n,
        }
        for hint, wrong in mistakes.items():
            if torch.allclose(found, wrong, atol=1e-5):
                raise Mistake(hint)
    raise Mistake("the new state is not that of PyTorch's cell. Compare with the formula again.")


@exercise
def scan(answer):
    """Check a function from factors and addends to all states, and count the rounds it takes."""
    for n in (1, 2, 7, 16, 37):
        generator = torch.Generator().manual_seed(n)
        f = torch.rand(n, generator=generator, dtype=torch.float64)
        b = torch.randn(n, generator=generator, dtype=torch.float64)
        right, c = [], torch.zeros((), dtype=torch.float64)
        for factor, addend in zip(f, b, strict=True):
            c = factor * c + addend
            right.append(c)
        right = torch.stack(right)
        counter = _Counter()
        with counter:
            found = answer(f.clone(), b.clone())
        if not isinstance(found, torch.Tensor) or found.shape != right.shape:
            raise Mistake(f"the states should be a tensor of shape {tuple(right.shape)}.")
        if not torch.allclose(found, right):
            once = b.clone()
            once[1:] += f[1:] * b[:-1]
            if n > 2 and torch.allclose(found, once):
                raise Mistake("that is one round. Go on with shifts of 2, 4, 8, ...")
            if n > 1 and torch.allclose(found, b.cumsum(0)):
                raise Mistake("the factors are missing: old states shrink.")
            raise Mistake(
                f"for {n} places the last state should be {right[-1]:.3f}, got {found[-1]:.3f}. "
                "In each round the factors are joined too: f[t] * f[t - shift]."
            )
        if n == 37 and counter.products > 4 * math.ceil(math.log2(n)):
            raise Mistake(
                f"right, but {n} places took {counter.products} products one after the other. "
                "Rounds of doubling shifts need two each."
            )


class _Counter(torch.utils._python_dispatch.TorchDispatchMode):
    """Count the products of tensors, whatever their size."""

    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += func.overloadpacket.__name__ in ("mul", "mul_", "addcmul", "addcmul_")
        return func(*args, **(kwargs or {}))
