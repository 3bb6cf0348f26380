"""Masks: which position may attend to which, and how other libraries write the same thing.

Chapter: https://transformer-lit.github.io/transformer_lit/book/08-what-may-not-be-seen.html
Paper: Vaswani et al. 2017, section 3.2.3, https://arxiv.org/abs/1706.03762
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from transformer_lit.vocabulary import real_positions


def padding_mask(lengths: Int[Tensor, "batch"], seq: int) -> Bool[Tensor, "batch 1 1 seq"]:
    """Let everybody attend to real positions only, before each sequence's length.

    Raises:
        ValueError: if a length is negative or larger than ``seq``.
    """
    return real_positions(lengths, seq)[:, None, None]


def causal_mask(seq: int) -> Bool[Tensor, "1 1 seq seq"]:
    """Let each position attend to itself and to those before it.

    Raises:
        ValueError: if ``seq`` is below 1.
    """
    if seq < 1:
        raise ValueError(f"seq must be at least 1, got {seq}")
    return torch.ones(seq, seq, dtype=torch.bool).tril()[None, None]
