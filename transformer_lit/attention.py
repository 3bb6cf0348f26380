"""Attention: every position asks all others, and takes a weighted mixture of what they offer.

Chapter: https://transformer-lit.github.io/transformer_lit/book/04-self-attention.html
Paper: Vaswani et al. 2017, section 3.2.1, https://arxiv.org/abs/1706.03762 (dot products);
    Bahdanau et al. 2015, appendix A.1.2, https://arxiv.org/abs/1409.0473 (additive scores).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Scores = Float[Tensor, "*batch query key"]
Mask = Bool[Tensor, "*mask"]
Bias = Float[Tensor, "*bias"]


def dot_product_scores(
    q: Float[Tensor, "*batch query d_head"],
    k: Float[Tensor, "*batch key d_head"],
    *,
    scale: float | None = None,
) -> Scores:
    """Score each query against each key: ``q @ k.T * scale``.

    Args:
        q: the queries.
        k: the keys, as wide as the queries.
        scale: ``1 / sqrt(d_head)`` by default, which keeps the variance of the scores at 1 when
            the entries of ``q`` and ``k`` are independent with variance 1.

    Raises:
        ValueError: if queries and keys differ in width, dtype or leading axes, or are empty.
    """
    _check(q, k, k)
    return q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)


class AdditiveScores(nn.Module):
    """Score with a small network instead of a product: ``v . tanh(W q + U k)``.

    Raises:
        ValueError: if a width is below 1.
    """

    def __init__(self, *, d_query: int, d_key: int, d_hidden: int):
        super().__init__()
        if min(d_query, d_key, d_hidden) < 1:
            raise ValueError(
                "d_query, d_key and d_hidden must be at least 1, "
                f"got {d_query}, {d_key} and {d_hidden}"
            )
        self.d_query, self.d_key = d_query, d_key
        self.q_proj = nn.Linear(d_query, d_hidden, bias=False)
        self.k_proj = nn.Linear(d_key, d_hidden, bias=False)
        self.v = nn.Linear(d_hidden, 1, bias=False)

    def forward(
        self, q: Float[Tensor, "*batch query d_query"], k: Float[Tensor, "*batch key d_key"]
    ) -> Scores:
        """Score each query against each key; the two may differ in width.

        Raises:
            ValueError: if a width or the dtype is not the layer's, leading axes differ, or nothing
                is there.
        """
        _check_axes(queries=q, keys=k)
        _check_dtype(q, self.q_proj)
        widths, expected = (q.shape[-1], k.shape[-1]), (self.d_query, self.d_key)
        if widths != expected:
            raise ValueError(f"queries and keys are {widths} wide, the layer expects {expected}")
        hidden = torch.tanh(self.q_proj(q)[..., :, None, :] + self.k_proj(k)[..., None, :, :])
        return self.v(hidden)[..., 0]


def softmax_weights(scores: Scores, mask: Mask | None = None) -> Scores:
    """Turn each row of scores into positive weights that sum to one.

    A query that may attend to nothing gets weights of zero, forward and backward: a softmax over
    an empty set has no value, and NaN would spread through all that follows.

    Raises:
        ValueError: if the scores are no real numbers, or the mask is not boolean or does not fit.
    """
    if not scores.is_floating_point():
        raise ValueError(f"scores must be real numbers, got {scores.dtype}")
    if mask is None:
        return scores.softmax(-1)
    check_mask(mask, scores.shape)
    some = mask.any(-1, keepdim=True)
    scores = scores.masked_fill(~mask, -torch.inf).masked_fill(~some, 0)
    return scores.softmax(-1).masked_fill(~some, 0)


def explicit_attention(
    q: Float[Tensor, "*batch query d_head"],
    k: Float[Tensor, "*batch key d_head"],
    v: Float[Tensor, "*batch key d_value"],
    mask: Mask | None = None,
    *,
    bias: Bias | None = None,
    causal: bool = False,
    weigh: Callable[..., Tensor] = softmax_weights,
) -> tuple[Float[Tensor, "*batch query d_value"], Scores]:
    """Attend, step by step: ``softmax(q k.T / sqrt(d_head)) v``, and the weights beside it.

    Args:
        q: the queries.
        k: the keys, as wide as the queries.
        v: the values, as many as the keys.
        mask: True = may attend; as many axes as the scores ``(*batch, query, key)``, each of
            their size or 1.
        bias: added to the scores; chapter 07 puts distances in. As many axes as the scores, each
            of their size or 1.
        causal: let each query attend to its own place and those before it only, as the mask of
            chapter 08 does; with ``mask``, where both allow it.
        weigh: what turns scores and mask into weights; chapter 04 tries others than softmax.

    Raises:
        ValueError: if widths, lengths, dtypes or leading axes do not fit, a size is zero, the mask
            or the bias does not fit, or ``causal`` is no bool, or is True and there are not as many
            keys as queries.
    """
    _check(q, k, v)
    scores = dot_product_scores(q, k)
    _check_options(mask, bias, causal, scores.shape)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if causal:
        mask = _without_future(mask, scores.shape, q.device)
    weights = weigh(scores, mask)
    return weights @ v, weights


def fused_attention(
    q: Float[Tensor, "*batch query d_head"],
    k: Float[Tensor, "*batch key d_head"],
    v: Float[Tensor, "*batch key d_value"],
    mask: Mask | None = None,
    *,
    bias: Bias | None = None,
    causal: bool = False,
) -> Float[Tensor, "*batch query d_value"]:
    """Attend in one fused kernel, which never stores the weights: the same output, faster.

    With ``causal`` and neither mask nor bias the kernel can skip blocks that lie wholly in the
    future, which saves time in long sequences; otherwise it computes all scores and hides some.

    Raises:
        ValueError: as ``explicit_attention``.
    """
    _check(q, k, v)
    shape = (*q.shape[:-1], k.shape[-2])
    _check_options(mask, bias, causal, shape)
    skips = causal and mask is None and bias is None and not _lost_nan(q, k)
    if causal and not skips:
        mask = _without_future(mask, shape, q.device)
    some, added = None, mask
    if mask is None and bias is None and not skips:
        added = q.new_zeros((1,) * (q.ndim - 1) + k.shape[-2:-1])  # so that NaN is not lost
    if bias is not None:
        added = bias.to(q.dtype)
        if mask is not None:  # the kernel takes one or the other, so the mask becomes -inf
            some = mask.any(-1, keepdim=True)
            added = added.masked_fill(~mask, -torch.inf).masked_fill(~some, 0)
    if q.ndim < 4:
        # With fewer axes than (batch, heads, seq, width) PyTorch quietly takes its unfused path.
        q, k, v = (x[(None,) * (4 - x.ndim)] for x in (q, k, v))
        added = None if added is None else added[(None,) * (4 - added.ndim)]
    output = F.scaled_dot_product_attention(q, k, v, added, is_causal=skips)
    output = output.reshape(*shape[:-1], v.shape[-1])
    return output if some is None else output.masked_fill(~some, 0)


class SelfAttention(nn.Module):
    """One head of self-attention: queries, keys and values all come from the same vectors.

    Raises:
        ValueError: if a width is below 1.
    """

    def __init__(self, *, d_model: int, d_head: int):
        super().__init__()
        if min(d_model, d_head) < 1:
            raise ValueError(f"d_model and d_head must be at least 1, got {d_model} and {d_head}")
        self.q_proj = nn.Linear(d_model, d_head)
        self.k_proj = nn.Linear(d_model, d_head)
        self.v_proj = nn.Linear(d_model, d_head)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        *,
        mask: Mask | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch seq d_head"], Float[Tensor, "batch seq seq"] | None]:
        """Mix the vectors of ``x``; the weights are returned only when asked for.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, is empty or of another dtype, or the mask
                is not boolean or does not fit ``(batch, seq, seq)``.
        """
        check_vectors(x, self.q_proj)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if need_weights:
            return explicit_attention(q, k, v, mask)
        return fused_attention(q, k, v, mask), None


def check_vectors(x: Tensor, layer: nn.Linear) -> None:
    """Refuse vectors that a layer cannot read, before PyTorch says so in other words.

    Raises:
        ValueError: if ``x`` is not ``(batch, seq, width)`` with the width of the layer, is empty,
            or of another dtype than the layer (autocast may mix them).
    """
    if x.ndim != 3 or x.shape[-1] != layer.in_features or x.numel() == 0:
        raise ValueError(
            f"x must be (batch, seq, {layer.in_features}) and not empty, got shape {tuple(x.shape)}"
        )
    _check_dtype(x, layer)


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a mask that could be misread, before it silently masks something else.

    Raises:
        ValueError: if the mask is not boolean, has not as many axes as ``shape``, or has an axis
            that is neither 1 nor that of ``shape``.
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be torch.bool with True = may attend, got {mask.dtype}; "
            "an additive mask of 0 and -inf becomes one by `mask == 0`"
        )
    fits = mask.ndim == len(shape) and all(
        m in (1, s) for m, s in zip(mask.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not fit scores of shape {tuple(shape)}: "
            "it needs as many axes, each of the same size or 1; "
            "padding of shape (batch, key) becomes (batch, 1, key) or (batch, 1, 1, key)"
        )


def _check_dtype(x: Tensor, layer: nn.Linear) -> None:
    dtype = layer.weight.dtype
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x is {x.dtype}, the layer {dtype}: convert one of them")


def _check_bias(bias: Tensor, shape: tuple[int, ...]) -> None:
    if not bias.is_floating_point():  # True and False would be added as 1 and 0
        raise ValueError(f"bias must be real numbers, got {bias.dtype}; a mask is given as mask")
    fits = bias.ndim == len(shape) and all(
        b in (1, s) for b, s in zip(bias.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"bias of shape {tuple(bias.shape)} does not fit scores of shape {tuple(shape)}: "
            "it needs as many axes, each of the same size or 1"
        )


def _check_options(
    mask: Mask | None, bias: Bias | None, causal: bool, shape: tuple[int, ...]
) -> None:
    if mask is not None:
        check_mask(mask, shape)
    if bias is not None:
        _check_bias(bias, shape)
    if not isinstance(causal, bool):  # a mask given here would count as True
        raise ValueError(f"causal must be True or False, got {causal!r}")
    if causal and shape[-2] != shape[-1]:
        raise ValueError(
            f"causal needs as many queries as keys, got {shape[-2]} and {shape[-1]}: "
            "say in a mask which of the keys each query may attend to"
        )


def _without_future(mask: Mask | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    past = torch.ones(shape[-2:], dtype=torch.bool, device=device).tril()
    return past[(None,) * (len(shape) - 2)] if mask is None else mask & past


def _lost_nan(q: Tensor, k: Tensor) -> bool:
    # Given nothing to add to the scores, PyTorch's kernel for the CPU turns NaN into zeros if all
    # scores of a query are NaN (https://github.com/pytorch/pytorch/issues/141128): it would hide a
    # broken model.
    return q.device.type == "cpu" and not (q.detach().sum() + k.detach().sum()).isfinite()


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    _check_axes(queries=q, keys=k, values=v)
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"queries are {q.shape[-1]} wide, keys {k.shape[-1]}: they must agree")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"there are {k.shape[-2]} keys and {v.shape[-2]} values: they must agree")


def _check_axes(**named: Tensor) -> None:
    shapes = {name: tuple(x.shape) for name, x in named.items()}
    for name, shape in shapes.items():
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"{name} must be (*batch, seq, width) and not empty, got shape {shape}"
            )
    if len({shape[:-2] for shape in shapes.values()}) > 1:
        leading = {name: shape[:-2] for name, shape in shapes.items()}
        raise ValueError(f"leading axes must agree, got {leading}")
    dtypes = {x.dtype for x in named.values()}
    device = next(iter(named.values())).device.type
    if len(dtypes) > 1 and not torch.is_autocast_enabled(device):
        found = ", ".join(f"{name} {x.dtype}" for name, x in named.items())
        raise ValueError(f"dtypes must agree, got {found}")
