"""ALiBi's slopes: one line per head, and what it leaves of equal scores.

Chapter: https://transformer-lit.github.io/transformer_lit/book/07-how-far-apart.html
"""

import torch
import traitlets

from transformer_lit.attention import explicit_attention
from transformer_lit.explorables import Explorable
from transformer_lit.relative_positions import ALiBi

KEYS = 32


class ALiBiExplorable(Explorable):
    """A query that looks back over 32 keys, all of which would have the same score.

    Args:
        n_heads: how many heads, 1 to 16.
        head: the one looked at, from 0.

    Raises:
        traitlets.TraitError: if there are not 1 to 16 heads, or no such head.
    """

    n_heads = traitlets.Int(8, min=1, max=16).tag(sync=True)
    head = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(self, n_heads=8, head=0):
        if not 0 <= head < n_heads:
            raise traitlets.TraitError(f"head must be one of the {n_heads}, got {head}")
        super().__init__(n_heads=n_heads, head=head)

    def attend(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute what the picture shows: the slopes ``(heads,)``, the head's weights ``(32,)``.

        The first weight is that of the query's own place, the last that of the furthest key.
        """
        position = ALiBi(n_heads=self.n_heads)
        q, k = torch.zeros(1, self.n_heads, 1, 1), torch.zeros(1, self.n_heads, KEYS, 1)
        _, weights = explicit_attention(q, k, k, bias=position.bias(q, k))
        return position.slopes, weights[0, self.head, 0].flip(0)
