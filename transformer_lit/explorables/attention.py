"""Words as points of a plane that attend to one another: move one, and its mixture follows.

Chapter: https://transformer-lit.github.io/transformer_lit/book/04-self-attention.html
"""

import math

import torch
import traitlets

from transformer_lit.attention import explicit_attention
from transformer_lit.explorables import Explorable


class AttentionExplorable(Explorable):
    """Three to six words with a vector of two numbers each, which is query, key and value at once.

    Args:
        words: their names.
        vectors: two numbers for each, between -3 and 3.
        query: the place of the word that attends.
        temperature: divides the scores; a cold softmax (towards 0) looks one word up.

    Raises:
        traitlets.TraitError: if there are not three to six words, not as many vectors of two
            finite numbers, no such query, or the temperature is not above 0.
    """

    words = traitlets.List(traitlets.Unicode(), minlen=3, maxlen=6).tag(sync=True)
    vectors = traitlets.List(traitlets.List(traitlets.Float(), minlen=2, maxlen=2)).tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)

    def __init__(self, words, vectors, *, query=0, temperature=1.0):
        vectors = [[float(x) for x in vector] for vector in vectors]
        if len(words) != len(vectors):
            raise traitlets.TraitError(f"{len(words)} words need as many vectors: {vectors}")
        if not all(abs(x) <= 3 for vector in vectors for x in vector):
            raise traitlets.TraitError(f"vectors must lie between -3 and 3, got {vectors}")
        if not 0 <= query < len(words):
            raise traitlets.TraitError(f"query must be one of the {len(words)} words, got {query}")
        if not 0 < temperature < math.inf:
            raise traitlets.TraitError(f"temperature must be above 0, got {temperature}")
        super().__init__(
            words=list(words), vectors=vectors, query=query, temperature=float(temperature)
        )

    def attend(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute what the picture shows: the output ``(2,)`` and the weights ``(words,)``."""
        x = torch.tensor(self.vectors)
        q = x[self.query, None] / self.temperature
        output, weights = explicit_attention(q, x, x)
        return output[0], weights[0]
