"""A small network that sees one symbol, or a window of neighbours, and answers for the middle one.

Chapter: https://transformer-lit.github.io/transformer_lit/book/03-one-symbol-then-a-window.html
Paper: Sejnowski and Rosenberg 1987, section 2 (NETtalk),
    https://content.wolfram.com/sites/13/2018/02/01-1-10.pdf
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from transformer_lit.embedding import Embedding


def windows(tokens: Int[Tensor, "batch seq"], width: int) -> Int[Tensor, "batch seq width"]:
    """Collect for each position the ids around it, itself in the middle.

    Beyond both ends stands id 0, which is ``vocabulary.PAD``.

    Raises:
        ValueError: if ``width`` is not odd and positive (the middle must be a symbol), the ids
            are no integers, or there is no symbol to look at.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd and at least 1, got {width}")
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(f"ids must be integers, got {tokens.dtype}")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"tokens must be (batch, seq) and not empty, got shape {tuple(tokens.shape)}"
        )
    return F.pad(tokens, (width // 2, width // 2)).unfold(1, width, 1)


class WindowClassifier(nn.Module):
    """Embed the symbols of a window, join their vectors, and classify with one hidden layer.

    A width of 1 is the network that sees one symbol at a time. The first layer has
    ``width * d_model * d_hidden`` weights; nothing else depends on the width.

    Raises:
        ValueError: if ``width`` is not odd and positive, or another size is below 1.
    """

    def __init__(self, *, vocab_size: int, n_classes: int, width: int, d_model: int, d_hidden: int):
        super().__init__()
        if width < 1 or width % 2 == 0:
            raise ValueError(f"width must be odd and at least 1, got {width}")
        if n_classes < 1 or d_hidden < 1:
            raise ValueError(
                f"n_classes and d_hidden must be at least 1, got {n_classes} and {d_hidden}"
            )
        self.width = width
        self.embedding = Embedding(vocab_size=vocab_size, d_model=d_model)
        self.hidden = nn.Linear(width * d_model, d_hidden)
        self.output = nn.Linear(d_hidden, n_classes)

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq n_classes"]:
        """Score the classes of every position from the window around it."""
        seen = self.embedding(windows(tokens, self.width))
        joined = rearrange(seen, "batch seq width d_model -> batch seq (width d_model)")
        return self.output(F.relu(self.hidden(joined)))
