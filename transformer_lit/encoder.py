"""The encoder: a stack of blocks that turns vectors into vectors that know their sequence.

Chapter: https://transformer-lit.github.io/transformer_lit/book/10-the-encoder.html
Paper: Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.attention import Mask
from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.vocabulary import real_positions


class Encoder(nn.Module):
    """Blocks one upon the other, pre-norm, and a last norm: a backbone for any task.

    What goes in are vectors, with their positions already: embedded letters, frames of sound,
    patches of an image. What comes out is one vector for each, to which a task puts its head.

    Args:
        n_layers: how many blocks.
        d_model: the width of the vectors, in and out.
        n_heads: the heads of each block.
        d_ff: the width within each block's feed-forward network.
        dropout: the share of each part's output that is set to zero in training.

    Raises:
        ValueError: if ``n_layers`` is below 1, or as the parts of a block.
    """

    def __init__(
        self, *, n_layers: int, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {n_layers}")
        self.blocks = nn.ModuleList(
            Block(
                attention=MultiHeadAttention(d_model=d_model, n_heads=n_heads),
                feed_forward=FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout),
                d_model=d_model,
                dropout=dropout,
            )
            for _ in range(n_layers)
        )
        self.norm = LayerNorm(d_model=d_model)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        *,
        mask: Mask | None = None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "batch seq d_model"], list[Float[Tensor, "batch heads seq seq"]]]:
        """Run the blocks in turn.

        Args:
            x: the vectors.
            mask: True = may attend; ``(batch or 1, heads or 1, query or 1, key or 1)``.
            need_weights: also return the weights of each block, from the first to the last.

        Raises:
            ValueError: as ``MultiHeadAttention.forward``.
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
        ValueError: if a length is below 1 or larger than the sequence, or their number is not
            that of the sequences.
    """
    if len(lengths) != len(x) or int(lengths.min()) < 1:
        raise ValueError(
            f"there must be a length of at least 1 for each of {len(x)} sequences, "
            f"got {lengths.tolist()}"
        )
    real = real_positions(lengths, x.shape[1])[..., None]
    return x.masked_fill(~real, 0).sum(1) / lengths[:, None]
