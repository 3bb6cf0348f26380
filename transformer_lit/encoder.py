"""The encoder: a stack of blocks, and two ways to make one vector of the many it returns.

Chapter: https://transformer-lit.github.io/transformer_lit/book/10-the-encoder.html
Paper: Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762 (the stack, post-norm);
    Devlin et al. 2019, section 3, https://arxiv.org/abs/1810.04805 (a token for the whole).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.attention import Mask
from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.vocabulary import real_positions


class Encoder(nn.Module):
    """Blocks one upon the other, and a last norm: a backbone for any task.

    What goes in are vectors that know their places already: embedded letters, frames of sound,
    patches of an image. What comes out is one vector for each. A task adds its own task head.

    Args:
        n_layers: how many blocks.
        d_model: the width of the vectors, in and out.
        n_heads: the heads of each block.
        d_ff: the width within each block's feed-forward network.
        dropout: the share of each part's output that is set to zero in training.
        norm_first: pre-norm; post-norm if False (chapter 09).
        position: makes the ``RelativePosition`` of a block's attention (chapter 07).

    Raises:
        ValueError: if ``n_layers`` is below 1, or a block refuses its sizes.
    """

    def __init__(
        self,
        *,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
        dropout: float = 0.0,
        norm_first: bool = True,
        position: Callable[[], nn.Module | None] = lambda: None,
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {n_layers}")
        self.blocks = nn.ModuleList(
            Block(
                attention=MultiHeadAttention(d_model=d_model, n_heads=n_heads, position=position()),
                feed_forward=FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout),
                d_model=d_model,
                dropout=dropout,
                norm_first=norm_first,
            )
            for _ in range(n_layers)
        )
        # A pre-norm block hands on a plain sum, which grows from block to block.
        self.norm: nn.Module = LayerNorm(d_model=d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        *,
        mask: Mask | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch seq d_model"], list[Float[Tensor, "batch heads seq seq"]]]:
        """Run the blocks in turn; the list holds each block's weights, and is empty if not asked.

        Args:
            x: the vectors.
            mask: True = may attend, the same for all blocks;
                ``(batch or 1, heads or 1, query or 1, key or 1)``.
            need_weights: also return the weights of each block, from the first to the last.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide or is empty, or the mask is not boolean
                or does not fit.
        """
        all_weights = []
        for block in self.blocks:
            x, weights = block(x, mask=mask, need_weights=need_weights)
            if need_weights:
                all_weights.append(weights)
        return self.norm(x), all_weights


def mean_pool(
    x: Float[Tensor, "batch seq d_model"], lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "batch d_model"]:
    """Average each sequence's vectors over its real positions.

    Raises:
        ValueError: if there is not one length for each sequence, one lies outside 1 .. seq or is no
            integer, or ``x`` holds no real numbers.
    """
    _check_lengths(x, lengths)
    real = real_positions(lengths, x.shape[1])[..., None]
    return x.masked_fill(~real, 0).sum(1) / lengths[:, None]


class SummaryToken(nn.Module):
    """Put a learned vector in front of each sequence, to gather what is said of the whole.

    Raises:
        ValueError: if ``d_model`` is below 1.
    """

    def __init__(self, *, d_model: int):
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be at least 1, got {d_model}")
        self.vector = nn.Parameter(torch.randn(d_model))

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch seq_and_one d_model"], Int[Tensor, "batch"]]:
        """Return the longer sequences and their lengths. The token stands at position 0.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide or holds no real numbers, there is not one
                length for each sequence, or one lies outside 1 .. seq or is no integer.
        """
        if x.shape[-1] != len(self.vector):
            raise ValueError(f"x must be {len(self.vector)} wide, got shape {tuple(x.shape)}")
        _check_lengths(x, lengths)
        return torch.cat([self.vector.expand(len(x), 1, -1), x], dim=1), lengths + 1


def _check_lengths(x: Tensor, lengths: Tensor) -> None:
    if x.ndim != 3 or lengths.shape != x.shape[:1] or len(x) == 0:
        raise ValueError(
            "x must be (batch, seq, d_model), not empty, with one length per sequence, "
            f"got shapes {tuple(x.shape)} and {tuple(lengths.shape)}"
        )
    if not x.is_floating_point():
        raise ValueError(f"x must be real numbers, got {x.dtype}")
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"lengths must be integers, got {lengths.dtype}")
    if not 1 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
        raise ValueError(f"lengths must lie in 1 .. {x.shape[1]}, got {lengths.tolist()}")
