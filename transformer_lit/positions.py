"""Positions: a vector for each place, so that attention can tell where a symbol stands.

Chapter: https://transformer-lit.github.io/transformer_lit/book/06-where-am-i.html
Paper: Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762 (sinusoids);
    Gehring et al. 2017, section 3.1, https://arxiv.org/abs/1705.03122 (learned).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sinusoids(max_len: int, d_model: int) -> Float[Tensor, "max_len d_model"]:
    """Give each place its sines and cosines, in columns ``2i`` and ``2i + 1``.

    They are those of the angle ``place / 10000 ** (2i / d_model)``, in radians.

    Raises:
        ValueError: if ``max_len`` is no whole number above 0, or ``d_model`` is not even and at
            least 2.
    """
    if max_len < 1 or max_len % 1:
        raise ValueError(f"max_len must be at least 1 and whole, got {max_len}")
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model must be even, for pairs of sine and cosine, got {d_model}")
    # In double precision: in single precision a large angle is rounded before its sine is taken.
    place = torch.arange(max_len, dtype=torch.float64)[:, None]
    angles = place * 10_000.0 ** -(torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class OneHotPositions(nn.Module):
    """Append to each vector its place as a one-hot vector: ``max_len`` more numbers.

    Raises:
        ValueError: if ``max_len`` is below 1.
    """

    table: Tensor

    def __init__(self, *, max_len: int):
        super().__init__()
        if max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        self.register_buffer("table", torch.eye(max_len), persistent=False)

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq wider"]:
        """Append the first ``seq`` rows of the table.

        Raises:
            ValueError: if ``x`` is longer than ``max_len``, or holds no real numbers.
        """
        return torch.cat([x, _rows(self.table, x).expand(len(x), -1, -1)], dim=-1)


class SinusoidalPositions(nn.Module):
    """Add to each vector the sinusoids of its place. Nothing is learned.

    Raises:
        ValueError: if ``max_len`` is below 1, or ``d_model`` is not even and at least 2.
    """

    table: Tensor

    def __init__(self, *, d_model: int, max_len: int):
        super().__init__()
        self.register_buffer("table", sinusoids(max_len, d_model), persistent=False)

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Add the first ``seq`` rows of the table.

        Raises:
            ValueError: if ``x`` is longer than ``max_len``, not ``d_model`` wide, or holds no real
                numbers.
        """
        return x + _rows(self.table, x, self.table.shape[1])


class LearnedPositions(nn.Module):
    """Add to each vector a vector of its place, learned like an embedding.

    Raises:
        ValueError: if ``max_len`` or ``d_model`` is below 1.
    """

    def __init__(self, *, d_model: int, max_len: int):
        super().__init__()
        if min(d_model, max_len) < 1:
            raise ValueError(f"d_model and max_len must be at least 1, got {d_model} and {max_len}")
        self.table = nn.Parameter(torch.randn(max_len, d_model))

    def forward(self, x: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "batch seq d_model"]:
        """Add the first ``seq`` rows of the table.

        Raises:
            ValueError: if ``x`` is longer than ``max_len``, not ``d_model`` wide, or holds no real
                numbers.
        """
        return x + _rows(self.table, x, self.table.shape[1])


def _rows(table: Tensor, x: Tensor, d_model: int | None = None) -> Tensor:
    if x.ndim != 3 or (d_model is not None and x.shape[-1] != d_model):
        width = "d_model" if d_model is None else d_model
        raise ValueError(f"x must be (batch, seq, {width}), got shape {tuple(x.shape)}")
    if not x.is_floating_point():  # the table would be rounded to the dtype of x
        raise ValueError(f"x must be real numbers, got {x.dtype}")
    if x.shape[1] > len(table):
        raise ValueError(
            f"x has {x.shape[1]} places, but there are rows for max_len = {len(table)} only"
        )
    # In the dtype of x, or vectors in half precision would come out in single precision.
    return table[: x.shape[1]].to(x.dtype)
