"""The sinusoids of 64 places as a picture: pick a place, and see which others are like it.

Chapter: https://transformer-lit.github.io/transformer_lit/book/06-where-am-i.html
"""

import torch
import traitlets

from transformer_lit.explorables import Explorable
from transformer_lit.positions import sinusoids

MAX_LEN = 64
WIDTHS = (8, 16, 32, 64, 128)


class PositionsExplorable(Explorable):
    """Sixty-four places, one of which is picked and compared with all others.

    Args:
        place: the place that is picked, from 0 to 63.
        other: the place it is compared with in words.
        d_model: the width of the sinusoids: 8, 16, 32, 64 or 128.

    Raises:
        traitlets.TraitError: if there is no such place, or the width is not one of these.
    """

    place = traitlets.Int(20, min=0, max=MAX_LEN - 1).tag(sync=True)
    other = traitlets.Int(27, min=0, max=MAX_LEN - 1).tag(sync=True)
    d_model = traitlets.Enum(WIDTHS, 64).tag(sync=True)

    def __init__(self, *, place=20, other=27, d_model=64):
        super().__init__(place=place, other=other, d_model=d_model)

    def vector(self) -> torch.Tensor:
        """Look up the vector of the picked place, ``(d_model,)``."""
        return sinusoids(MAX_LEN, self.d_model)[self.place]

    def alike(self) -> torch.Tensor:
        """Compute what the curve shows: the cosine similarity to every place, ``(64,)``."""
        table = sinusoids(MAX_LEN, self.d_model)
        return table @ table[self.place] / (self.d_model / 2)
