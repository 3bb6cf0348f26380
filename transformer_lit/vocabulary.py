"""Symbols become ids, ids become one-hot vectors, and sets of vectors become padded batches.

Chapter: https://transformer-lit.github.io/transformer_lit/book/01-symbols-as-vectors.html
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAD = "<pad>"
UNKNOWN = "<unk>"


class Vocabulary:
    """A two-way table between symbols and ids.

    The special symbols come first, so that ``PAD`` is id 0; the others follow in the order given,
    each once.

    Args:
        symbols: the ordinary symbols, for example the letters of the alphabet.
        specials: symbols with a meaning of their own. Leave ``UNKNOWN`` out and a symbol that the
            vocabulary does not know is an error instead of an ``<unk>``.

    Raises:
        ValueError: if no symbol is given, or an ordinary symbol is also a special one.
    """

    def __init__(self, symbols: Iterable[str], specials: Sequence[str] = (PAD, UNKNOWN)):
        ordinary = list(dict.fromkeys(symbols))
        if not ordinary:
            raise ValueError("a vocabulary needs at least one symbol, got none")
        clash = [symbol for symbol in ordinary if symbol in specials]
        if clash:
            raise ValueError(f"symbols {clash} are special symbols already")
        self.symbols: tuple[str, ...] = (*dict.fromkeys(specials), *ordinary)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        """Count all symbols, special ones included."""
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        """Tell whether the vocabulary knows ``symbol``."""
        return symbol in self._ids

    def id_of(self, symbol: str) -> int:
        """Return the id of one symbol, or that of ``UNKNOWN``.

        Raises:
            ValueError: if neither the symbol nor ``UNKNOWN`` is in the vocabulary.
        """
        if symbol in self._ids:
            return self._ids[symbol]
        if UNKNOWN in self._ids:
            return self._ids[UNKNOWN]
        known = " ".join(self.symbols[:40]) + (" ..." if len(self) > 40 else "")
        raise ValueError(f"unknown symbol {symbol!r}; this vocabulary knows: {known}")

    def encode(self, text: Iterable[str]) -> Int[Tensor, "seq"]:
        """Turn symbols (a string is a sequence of letters) into ids.

        Raises:
            ValueError: if ``text`` is empty, or holds an unknown symbol and the vocabulary has no
                ``UNKNOWN``.
        """
        ids = [self.id_of(symbol) for symbol in text]
        if not ids:
            raise ValueError(f"cannot encode an empty sequence, got {text!r}")
        return torch.tensor(ids)

    def decode(self, tokens: Int[Tensor, "seq"] | Sequence[int]) -> list[str]:
        """Turn ids back into symbols, padding left out.

        Raises:
            ValueError: if the ids are no row of integers, or one lies outside the vocabulary.
        """
        if isinstance(tokens, Tensor) and (tokens.ndim != 1 or not _is_whole(tokens)):
            raise ValueError(
                f"ids must be integers (seq,), got {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        ids = [int(i) for i in tokens]
        outside = [i for i in ids if not 0 <= i < len(self)]
        if outside:
            raise ValueError(f"ids {outside} are outside a vocabulary of {len(self)} symbols")
        return [self.symbols[i] for i in ids if self.symbols[i] != PAD]


def one_hot(tokens: Int[Tensor, "*shape"], vocab_size: int) -> Float[Tensor, "*shape vocab_size"]:
    """Give each id a vector of zeros with a single one, at the place of the id.

    Raises:
        ValueError: if the ids are no integers, one is negative or not below ``vocab_size``, or
            that is no whole number above 0.
    """
    if vocab_size < 1 or vocab_size % 1:
        raise ValueError(f"vocab_size must be at least 1 and whole, got {vocab_size}")
    if not _is_whole(tokens):  # 1.5 would match no place and become a vector of zeros
        raise ValueError(f"ids must be integers, got {tokens.dtype}")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise ValueError(
            f"ids must lie in 0 .. {vocab_size - 1}, "
            f"got ids from {int(tokens.min())} to {int(tokens.max())}"
        )
    return (tokens[..., None] == torch.arange(vocab_size, device=tokens.device)).float()


class Batch(NamedTuple):
    """Sequences of unequal lengths in one tensor.

    ``values`` is ``(batch, seq, features)``, or ``(batch, seq)`` for ids; ``lengths`` is
    ``(batch,)``, the number of real positions of each sequence.
    """

    values: Tensor
    lengths: Tensor


def pad(sequences: Sequence[Tensor], value: float = 0) -> Batch:
    """Stack sequences of unequal lengths, filled up with ``value`` at the end.

    Args:
        sequences: tensors of ids ``(seq,)`` or of vectors ``(seq, features)``; ``seq`` may differ.
        value: what to fill with. For ids it should be that of ``PAD``, which is 0.

    Raises:
        ValueError: if there are no sequences, one is empty, or they differ in features or dtype.
    """
    if len(sequences) == 0:
        raise ValueError("cannot make a batch of no sequences")
    if any(sequence.ndim == 0 for sequence in sequences):
        raise ValueError("sequences must be (seq,) or (seq, features), got a single number")
    shapes = {tuple(sequence.shape[1:]) for sequence in sequences}
    if len(shapes) > 1:
        raise ValueError(f"sequences must agree in features, got feature shapes {sorted(shapes)}")
    dtypes = {str(sequence.dtype) for sequence in sequences}
    if len(dtypes) > 1:  # the first dtype would win, and 0.5 become 0 among integers
        raise ValueError(f"sequences must agree in dtype, got {' and '.join(sorted(dtypes))}")
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    if 0 in lengths:
        empty = (lengths == 0).nonzero().flatten().tolist()
        raise ValueError(f"sequences {empty} of the batch are empty")
    values = torch.nn.utils.rnn.pad_sequence(list(sequences), True, value)
    return Batch(values, lengths.to(values.device))


def real_positions(lengths: Int[Tensor, "batch"], seq: int) -> Bool[Tensor, "batch seq"]:
    """Mark the positions that hold a symbol rather than padding: True before each length.

    Raises:
        ValueError: if ``seq`` is negative or no whole number, or the lengths are no row of
            integers, one is negative or one is larger than ``seq``.
    """
    if seq < 0 or seq % 1:
        raise ValueError(f"seq must be at least 0 and whole, got {seq}")
    if lengths.ndim != 1 or not _is_whole(lengths):
        raise ValueError(
            f"lengths must be integers, got {lengths.dtype} of shape {tuple(lengths.shape)} "
            "instead of (batch,)"
        )
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= seq:
        raise ValueError(f"lengths must lie in 0 .. {seq}, got {lengths.tolist()}")
    return torch.arange(seq, device=lengths.device) < lengths[:, None]


def _is_whole(x: Tensor) -> bool:
    return not x.is_floating_point() and not x.is_complex() and x.dtype != torch.bool
