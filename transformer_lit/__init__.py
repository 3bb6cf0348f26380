"""The Literate Transformer: the package behind the book, one floor per chapter.

Floor ``LADDER[i]`` belongs to chapter ``i + 1`` and stands on the floors below it, on no other.
Import what you need from its floor: ``from transformer_lit.attention import SelfAttention``.
"""

LADDER = (
    "vocabulary",
    "embedding",
    "window",
    "attention",
    "multi_head",
    "positions",
    "relative_positions",
    "masking",
    "block",
    "encoder",
    "encoder_decoder",
    "training",
    "decoding",
    "scheduled_sampling",
    "non_autoregressive",
    "copying",
    "sequences",
    "convolution",
    "recurrence",
    "sparse_attention",
    "pretrained",
    "distributed",
)
