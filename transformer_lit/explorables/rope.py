"""RoPE as arrows on dials: queries and keys turn with their places, the score feels the difference.

Chapter: https://transformer-lit.github.io/transformer_lit/book/07-how-far-apart.html
"""

import torch
import traitlets

from transformer_lit.explorables import Explorable
from transformer_lit.relative_positions import RoPE

FURTHEST = 60


class RoPEExplorable(Explorable):
    """A query and a key of two to eight pairs of numbers, one dial per pair.

    Args:
        query: its numbers, pair after pair, between -2 and 2.
        key: those of the key.
        query_place: where the query stands, 0 to 60.
        key_place: where the key stands.

    Raises:
        traitlets.TraitError: if query and key are not two to eight pairs each, as many of one as of
            the other, a number or a place is out of range.
    """

    query = traitlets.List(traitlets.Float(), minlen=4, maxlen=16).tag(sync=True)
    key = traitlets.List(traitlets.Float(), minlen=4, maxlen=16).tag(sync=True)
    query_place = traitlets.Int(0, min=0, max=FURTHEST).tag(sync=True)
    key_place = traitlets.Int(0, min=0, max=FURTHEST).tag(sync=True)

    def __init__(self, query, key, *, query_place=0, key_place=0):
        query, key = ([float(x) for x in vector] for vector in (query, key))
        if len(query) != len(key) or len(query) % 2:
            raise traitlets.TraitError(
                "query and key must be pairs, as many of one as of the other, "
                f"got {len(query)} and {len(key)} numbers"
            )
        if not all(abs(x) <= 2 for x in query + key):
            raise traitlets.TraitError(f"numbers must lie between -2 and 2, got {query} and {key}")
        super().__init__(query=query, key=key, query_place=query_place, key_place=key_place)

    def score(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute what the picture shows: each pair's share ``(pairs,)``, and the score."""
        rope = RoPE(d_head=len(self.query), layout="interleaved")
        q, k = (
            rope.turn(torch.tensor([vector]), torch.tensor([place]))[0]
            for vector, place in ((self.query, self.query_place), (self.key, self.key_place))
        )
        shares = (q * k).view(-1, 2).sum(-1) / len(self.query) ** 0.5
        return shares, shares.sum()
