"""A mask to paint: forbid and allow who sees whom, and the rows of weights follow.

Chapter: https://transformer-lit.github.io/transformer_lit/book/08-what-may-not-be-seen.html
"""

import math

import torch
import traitlets

from transformer_lit.attention import softmax_weights
from transformer_lit.explorables import Explorable


class MaskingExplorable(Explorable):
    """Two to six words, their scores, and a mask that says which word may attend to which.

    Args:
        words: their names.
        scores: one row of finite numbers per word that looks, one number per word looked at.
        mask: rows of booleans like the scores, True = may attend; all True by default.
        length: how many words are real, for the padding mask; all by default.
        window: how many steps the local mask lets a word look, on each side.

    Raises:
        traitlets.TraitError: if there are not two to six words, scores or mask are not as many
            rows and columns, a score is not finite, ``length`` is not one of 0 to the number of
            words, or ``window`` is below 0.
    """

    words = traitlets.List(traitlets.Unicode(), minlen=2, maxlen=6).tag(sync=True)
    scores = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    mask = traitlets.List(traitlets.List(traitlets.Bool())).tag(sync=True)
    length = traitlets.Int().tag(sync=True)
    window = traitlets.Int().tag(sync=True)

    def __init__(self, words, scores, *, mask=None, length=None, window=1):
        n = len(words)
        scores = [[float(score) for score in row] for row in scores]
        mask = [[True] * n] * n if mask is None else [[bool(may) for may in row] for row in mask]
        length = n if length is None else length
        for name, rows in (("scores", scores), ("mask", mask)):
            if [len(row) for row in rows] != [n] * n:
                shape = [len(row) for row in rows]
                raise traitlets.TraitError(f"{name} need {n} rows of {n}, got rows of {shape}")
        if not all(math.isfinite(score) for row in scores for score in row):
            raise traitlets.TraitError(f"scores must be finite, got {scores}")
        if not 0 <= length <= n:
            raise traitlets.TraitError(f"length must lie in 0 .. {n}, got {length}")
        if window < 0:
            raise traitlets.TraitError(f"window must be at least 0, got {window}")
        super().__init__(words=list(words), scores=scores, mask=mask, length=length, window=window)

    def weights(self) -> torch.Tensor:
        """Compute what the picture shows: the weights, ``(words, words)``."""
        return softmax_weights(torch.tensor(self.scores), torch.tensor(self.mask))
