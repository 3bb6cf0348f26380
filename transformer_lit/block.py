"""The block: attention, then a small network at each place, each with a residual and a norm.

Chapter: https://transformer-lit.github.io/transformer_lit/book/09-the-block.html
Paper: Vaswani et al. 2017, sections 3.1 and 3.3, https://arxiv.org/abs/1706.03762 (post-norm);
    Ba et al. 2016, section 3, https://arxiv.org/abs/1607.06450 (LayerNorm);
    Xiong et al. 2020, section 3, https://arxiv.org/abs/2002.04745 (pre-norm).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lit.attention import Mask


class LayerNorm(nn.Module):
    """Give each vector mean 0 and variance 1, then a scale and a shift that are learned.

    Args:
        d_model: the width of the vectors.
        eps: added to the variance, so that a vector of equal numbers does not divide by zero.

    Raises:
        ValueError: if ``d_model`` is below 1 or ``eps`` is not positive and finite.
    """

    def __init__(self, *, d_model: int, eps: float = 1e-5):
        super().__init__()
        if d_model < 1 or not 0 < eps < torch.inf:
            raise ValueError(
                f"d_model must be at least 1 and eps positive, got {d_model} and {eps}"
            )
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
        """Normalise each vector by itself: nothing passes between places or sequences.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, or of another dtype than the layer
                (autocast may mix them).
        """
        gain: Tensor = self.gain
        bias: Tensor = self.bias
        _check_width(x, gain.shape[0])
        if x.dtype != gain.dtype:
            _check_dtype(x, gain)
            gain, bias = gain.to(x.dtype), bias.to(x.dtype)
        # (x - mean) / sqrt(variance + eps) * gain + bias, in one kernel instead of five operations.
        # The variance is the mean of the squares, divided by d_model: torch.var's by d_model - 1.
        return F.layer_norm(x, gain.shape, gain, bias, self.eps)


class FeedForward(nn.Module):
    """Widen each vector, cut off below zero, narrow it again: the same network at each place.

    Dropout between the two layers is PyTorch's; the paper has none there.

    Raises:
        ValueError: if a size is below 1, or ``dropout`` is not in [0, 1).
    """

    def __init__(self, *, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        if min(d_model, d_ff) < 1:
            raise ValueError(f"d_model and d_ff must be at least 1, got {d_model} and {d_ff}")
        _check_dropout(dropout)
        self.widen = nn.Linear(d_model, d_ff)
        self.narrow = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
        """Change each vector by itself.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, or of another dtype than the layer
                (autocast may mix them).
        """
        self._check(x)
        return self.narrow(self.dropout(self.widen(x).relu_()))

    def _check(self, x: Tensor) -> None:
        _check_width(x, self.widen.in_features)
        _check_dtype(x, self.widen.weight)


class Block(nn.Module):
    """One layer of a Transformer: attention among the places, then a network at each of them.

    Args:
        attention: mixes the vectors; called as ``attention(x, mask=..., need_weights=...)``, and
            returns the mixture and the weights, as ``MultiHeadAttention`` does.
        feed_forward: changes each vector by itself.
        d_model: the width of the vectors.
        dropout: the share of each part's output that is set to zero in training.
        norm_first: normalise what goes into each part (pre-norm) instead of the sum behind it
            (post-norm, the paper's).

    Raises:
        ValueError: if ``d_model`` is below 1, or ``dropout`` is not in [0, 1).
    """

    def __init__(
        self,
        *,
        attention: nn.Module,
        feed_forward: nn.Module,
        d_model: int,
        dropout: float = 0.0,
        norm_first: bool = True,
    ):
        super().__init__()
        _check_dropout(dropout)
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm = LayerNorm(d_model=d_model)
        self.feed_forward_norm = LayerNorm(d_model=d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        *,
        mask: Mask | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Float[Tensor, "batch heads seq seq"] | None]:
        """Run both parts; the attention's weights are returned only when asked for.

        Raises:
            ValueError: as the attention that was handed in.
        """
        before = self.attention_norm(x) if self.norm_first else x
        mixed, weights = self.attention(before, mask=mask, need_weights=need_weights)
        x = x + self.dropout(mixed)
        if not self.norm_first:
            x = self.attention_norm(x)
        before = self.feed_forward_norm(x) if self.norm_first else x
        x = x + self.dropout(self.feed_forward(before))
        return (x if self.norm_first else self.feed_forward_norm(x)), weights


def _check_width(x: Tensor, d_model: int) -> None:
    if x.shape[-1] != d_model:
        raise ValueError(f"x must be {d_model} wide, got shape {tuple(x.shape)}")


def _check_dtype(x: Tensor, weight: Tensor) -> None:
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x is {x.dtype}, the layer {weight.dtype}: convert one of them")


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
