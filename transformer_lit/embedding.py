"""Embeddings: each symbol gets a short vector that is learned, and the same table reads it back.

Chapter: https://transformer-lit.github.io/transformer_lit/book/02-embeddings.html
Paper: Bengio et al. 2003, section 2, https://www.jmlr.org/papers/v3/bengio03a.html (the lookup);
    Press and Wolf 2017, section 2, https://aclanthology.org/E17-2025/ (the tied output layer);
    Vaswani et al. 2017, section 3.4, https://arxiv.org/abs/1706.03762 (the factor sqrt(d_model)).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Embedding(nn.Module):
    """A table of one learned row per symbol: ``E[id] = one_hot(id) @ E``.

    With ``scaled=True`` rows start at standard deviation ``1 / sqrt(d_model)`` and are multiplied
    by ``sqrt(d_model)`` on the way out, so that the table is small enough to be an output layer
    (``TiedOutput``) while its outputs have entries of size 1. Without, rows start and leave at
    size 1.

    Raises:
        ValueError: if ``vocab_size`` or ``d_model`` is below 1.
    """

    def __init__(self, *, vocab_size: int, d_model: int, scaled: bool = False):
        super().__init__()
        if vocab_size < 1 or d_model < 1:
            raise ValueError(
                f"vocab_size and d_model must be at least 1, got {vocab_size} and {d_model}"
            )
        self.scale = d_model**0.5 if scaled else 1.0
        self.weight = nn.Parameter(torch.randn(vocab_size, d_model) / self.scale)

    def forward(self, tokens: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d_model"]:
        """Look the rows of ``tokens`` up.

        Raises:
            ValueError: if the ids are no integers, or one lies outside the table. A GPU would only
                report a failed device-side assertion, later and somewhere else.
        """
        if tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"ids must be integers (int64 or int32), got {tokens.dtype}")
        vocab_size = len(self.weight)
        if tokens.numel():
            low, high = (int(end) for end in tokens.aminmax())
            if not 0 <= low <= high < vocab_size:
                raise ValueError(
                    f"ids must lie in 0 .. {vocab_size - 1}, got ids from {low} to {high}"
                )
        # weight[tokens] is the same lookup, but on several threads PyTorch adds its gradients up in
        # an order that changes from run to run, and so does their last digit.
        return F.embedding(tokens, self.weight) * self.scale


class TiedOutput(nn.Module):
    """Turn vectors into logits over the vocabulary with the embedding's own table.

    ``logits = x @ E.T + bias``: a symbol is likely where the vector points its way. The table is
    shared, not copied; only the bias is new. The factor of a scaled embedding is left out here, so
    that vectors with entries of size 1 give logits of size 1.
    """

    def __init__(self, embedding: Embedding):
        super().__init__()
        self.embedding = embedding
        self.bias = nn.Parameter(torch.zeros(len(embedding.weight)))

    def forward(self, x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape vocab_size"]:
        """Score every symbol of the vocabulary for each vector of ``x``.

        Raises:
            ValueError: if the width of ``x`` is not that of the embedding, or its dtype another
                (autocast may mix them).
        """
        weight = self.embedding.weight
        d_model = weight.shape[1]
        if x.shape[-1] != d_model:
            raise ValueError(f"x must be {d_model} wide, as the embedding is, got {x.shape[-1]}")
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x is {x.dtype}, the embedding {weight.dtype}: convert one of them")
        return F.linear(x, weight, self.bias)
