"""Masks: which position may attend to which, and how other libraries write the same thing.

Chapter: https://transformer-lit.github.io/transformer_lit/book/08-what-may-not-be-seen.html
Paper: Vaswani et al. 2017, section 3.2.3, https://arxiv.org/abs/1706.03762 (the future);
    Beltagy et al. 2020, section 3.1, https://arxiv.org/abs/2004.05150 (windows).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transformer_lit.vocabulary import real_positions

HIDES = -9_000.0  # old models add -10,000 to hide, which bfloat16 rounds to -9,984


def padding_mask(lengths: Int[Tensor, "batch"], seq: int) -> Bool[Tensor, "batch 1 1 seq"]:
    """Let everybody attend to real positions only, those before each sequence's length.

    Raises:
        ValueError: if ``seq`` is below 1, or the lengths are no row of integers, one is negative
            or one is larger than ``seq``.
    """
    _check_seq(seq)
    return real_positions(lengths, seq)[:, None, None]


def causal_mask(seq: int) -> Bool[Tensor, "1 1 seq seq"]:
    """Let each position attend to itself and to those before it.

    Raises:
        ValueError: if ``seq`` is no whole number above 0.
    """
    _check_seq(seq)
    return torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]


def local_mask(seq: int, window: int) -> Bool[Tensor, "1 1 seq seq"]:
    """Let each position attend to those at most ``window`` steps away, on both sides.

    The paper's ``w`` counts both sides together, so it is ``2 * window``.

    Raises:
        ValueError: if ``seq`` is below 1 or ``window`` below 0, or one is no whole number.
    """
    _check_seq(seq)
    if window < 0 or window % 1:
        raise ValueError(f"window must be at least 0 and whole, got {window}")
    place = torch.arange(seq)
    return ((place - place[:, None]).abs() <= window)[None, None]


def forbidden(mask: Bool[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Turn True = may attend into True = may not, as ``nn.MultiheadAttention`` wants it, or back.

    Its ``key_padding_mask`` has the shape (batch, key), its ``attn_mask`` (query, key) or
    (batch * heads, query, key).

    Raises:
        ValueError: if the mask is not boolean: ``~`` of the integers 0 and 1 is -1 and -2.
    """
    _check_boolean(mask)
    return ~mask


def to_additive(
    mask: Bool[Tensor, "*shape"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*shape"]:
    """Turn a mask into numbers that are added to the scores: 0 = may attend, -inf = may not.

    Raises:
        ValueError: if the mask is not boolean, or ``dtype`` is none of real numbers.
    """
    _check_boolean(mask)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be one of real numbers, got {dtype}")
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -torch.inf)


def from_additive(additive: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Turn numbers that are added to the scores into a mask; all below -9,000 count as hidden.

    Raises:
        ValueError: if the numbers are not real, or one is neither 0 nor below -9,000: such a
            number is a bias, which no boolean mask can hold.
    """
    if not additive.is_floating_point():
        raise ValueError(f"an additive mask must hold real numbers, got {additive.dtype}")
    between = additive[~((additive == 0) | (additive < HIDES))]
    if between.numel():
        raise ValueError(f"an additive mask is 0 or below {HIDES}, got {between[0].item()}")
    return additive == 0


def _check_seq(seq: int) -> None:
    if seq < 1 or seq % 1:
        raise ValueError(f"seq must be at least 1 and whole, got {seq}")


def _check_boolean(mask: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be torch.bool with True = may attend, got {mask.dtype}")
