"""Many heads: several attentions side by side, each in a smaller space of its own.

Chapter: https://transformer-lit.github.io/transformer_lit/book/05-many-heads.html
Paper: Vaswani et al. 2017, section 3.2.2, https://arxiv.org/abs/1706.03762
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lit.attention import (
    Mask,
    SelfAttention,
    check_mask,
    check_vectors,
    explicit_attention,
    fused_attention,
)

Heads = Float[Tensor, "batch heads seq d_head"]


class MultiHeadAttention(nn.Module):
    """One projection, split among the heads: what everybody runs.

    Args:
        d_model: the width of the vectors, in and out.
        n_heads: how many heads; each is ``d_model / n_heads`` wide.
        position: lets the heads see how far apart symbols stand, as a ``RelativePosition`` of
            chapter 07 does: it may ``rotate`` queries and keys, add a ``bias`` to the scores, and
            add something ``extra``, made of the weights, to the output.

    Raises:
        ValueError: if ``n_heads`` is below 1 or does not divide ``d_model``.
    """

    def __init__(self, *, d_model: int, n_heads: int, position: nn.Module | None = None):
        super().__init__()
        if n_heads < 1 or d_model < 1 or d_model % n_heads:
            raise ValueError(
                "n_heads must be at least 1 and divide d_model, "
                f"got {n_heads} heads for a width of {d_model}"
            )
        self.n_heads, self.position = n_heads, position
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def keys_values(self, x: Float[Tensor, "batch key d_model"]) -> tuple[Heads, Heads]:
        """Project vectors to the keys and the values of all heads.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, is empty or of another dtype.
        """
        check_vectors(x, self.k_proj)
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def forward(
        self,
        x: Float[Tensor, "batch query d_model"],
        *,
        mask: Mask | None = None,
        causal: bool = False,
        need_weights: bool = False,
        keys_values: tuple[Heads, Heads] | None = None,
    ) -> tuple[Float[Tensor, "batch query d_model"], Float[Tensor, "batch heads query key"] | None]:
        """Let every head mix the vectors of ``x``, join the results and project them.

        Where nothing may be attended to, the heads give zeros and the output is the bias of
        ``out_proj``.

        Args:
            x: the vectors.
            mask: True = may attend; ``(batch or 1, heads or 1, query or 1, key or 1)``.
            causal: let each vector attend to its own place and those before it only; with
                ``mask``, where both allow it. Without ``mask``, ``need_weights`` and a bias of
                positions, this takes less time than a mask where sequences are long.
            need_weights: also return each head's weights, at the price of the explicit form.
            keys_values: attend to these, made by the method of this name, instead of to ``x``.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, is empty or of another dtype, the mask is
                not boolean or does not fit, or ``causal`` is no bool, or is True and there are not
                as many keys as vectors in ``x``.
        """
        check_vectors(x, self.q_proj)
        q = self._split(self.q_proj(x))
        k, v = self.keys_values(x) if keys_values is None else keys_values
        heads, weights = self.attend(q, k, v, mask=mask, causal=causal, need_weights=need_weights)
        return self.out_proj(heads), weights

    def attend(
        self,
        q: Float[Tensor, "batch heads query d_head"],
        k: Float[Tensor, "batch heads key d_head"],
        v: Float[Tensor, "batch heads key d_head"],
        *,
        mask: Mask | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch query d_model"], Float[Tensor, "batch heads query key"] | None]:
        """Do what lies between the projections: let every head attend, and join the results.

        Raises:
            ValueError: if keys and values differ in width, the mask is not boolean or does not
                fit, or ``causal`` is no bool, or is True and there are not as many keys as queries.
        """
        if k.shape[-1] != v.shape[-1]:
            raise ValueError(f"keys are {k.shape[-1]} wide, values {v.shape[-1]}: they must agree")
        position: Any = self.position
        bias = None
        if position is not None:
            q, k = position.rotate(q, k)
            bias = position.bias(q, k)
        if need_weights or (position is not None and position.needs_weights):
            heads, weights = explicit_attention(q, k, v, mask, bias=bias, causal=causal)
            extra = None if position is None else position.extra(weights)
            heads = heads if extra is None else heads + extra
        else:
            heads, weights = fused_attention(q, k, v, mask, bias=bias, causal=causal), None
        return heads.transpose(1, 2).flatten(2), weights if need_weights else None

    def _split(self, x: Tensor) -> Heads:
        # (batch, seq, heads * d) to (batch, heads, seq, d). `rearrange` says it better, but takes
        # several times as long, which counts where a decoder comes here for every symbol.
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class SeparateHeads(nn.Module):
    """Heads with projections of their own, of any width: the paper's formula read literally.

    With ``d_head = d_model / n_heads`` it can hold the same function as ``MultiHeadAttention``
    (``split`` makes it); wider heads cost more.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, *, d_model: int, n_heads: int, d_head: int):
        super().__init__()
        if min(d_model, n_heads, d_head) < 1:
            raise ValueError(
                "d_model, n_heads and d_head must be at least 1, "
                f"got {d_model}, {n_heads} and {d_head}"
            )
        self.heads = nn.ModuleList(
            SelfAttention(d_model=d_model, d_head=d_head) for _ in range(n_heads)
        )
        self.out_proj = nn.Linear(n_heads * d_head, d_model)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, mask: Mask | None = None
    ) -> Float[Tensor, "batch seq d_model"]:
        """Run the heads one after another, join and project.

        ``x``, ``mask`` and the errors about them are those of ``MultiHeadAttention.forward``.
        """
        check_vectors(x, self.heads[0].q_proj)  # type: ignore[arg-type]
        masks: Sequence[Mask | None] = [None] * len(self.heads)
        if mask is not None:
            check_mask(mask, (len(x), len(self.heads), x.shape[1], x.shape[1]))
            masks = mask.expand(-1, len(self.heads), -1, -1).unbind(1)
        mixed = [head(x, mask=m)[0] for head, m in zip(self.heads, masks, strict=True)]
        return self.out_proj(torch.cat(mixed, dim=-1))

    @classmethod
    def split(cls, whole: MultiHeadAttention) -> "SeparateHeads":
        """Cut the projections of ``whole`` into one piece per head: the same function."""
        d_model, n = whole.out_proj.in_features, whole.n_heads
        parts = cls(d_model=d_model, n_heads=n, d_head=d_model // n).to(whole.out_proj.weight)
        for name in ("q_proj", "k_proj", "v_proj"):
            proj = getattr(whole, name)
            pieces = zip(proj.weight.chunk(n), proj.bias.chunk(n), strict=True)
            for head, (weight, bias) in zip(parts.heads, pieces, strict=True):
                head.get_submodule(name).load_state_dict({"weight": weight, "bias": bias})
        parts.out_proj.load_state_dict(whole.out_proj.state_dict())
        return parts
