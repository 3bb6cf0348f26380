"""All at once: a decoder that is told nothing but how many symbols to write, and writes them all.

Chapter: https://transformer-lit.github.io/transformer_lit/book/15-all-at-once.html
Paper: Gu et al. 2018, sections 2 and 3, https://arxiv.org/abs/1711.02281 (one pass, many modes);
    Ghazvininejad et al. 2019, sections 2 and 3, https://arxiv.org/abs/1904.09324 (mask-predict).
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer_lit.decoding import evaluating
from transformer_lit.encoder import mean_pool
from transformer_lit.encoder_decoder import (
    BEGIN_ID,
    STOP_ID,
    EncoderDecoder,
    Memory,
    PaddingMask,
    Settings,
)
from transformer_lit.masking import padding_mask

Lengths = Int[Tensor, "batch"]


class NonAutoregressive(EncoderDecoder):
    """An encoder-decoder whose decoder reads begin tokens, and here and there a known symbol.

    The begin token stands wherever a symbol is not known. A place sees all others: no causal mask.
    The length of the target is a class of its own, told from what the encoder read.

    Trained by ``train`` of chapter 12, with targets from ``with_length``. By a coin, a target is
    given *room* (places for ``spare`` symbols more than the source has) and nothing is known of it;
    or it is given its length, and a random share of its symbols, from none to all.

    Args:
        settings: the sizes; ``target_size`` also bounds the lengths that can be told.
        spare: how many places more than the source has the room has.

    Raises:
        ValueError: as ``EncoderDecoder``, or if ``spare`` is below 0.
    """

    def __init__(self, settings: Settings, *, spare: int = 2):
        super().__init__(settings)
        if spare < 0 or spare % 1:
            raise ValueError(f"spare must be at least 0 and whole, got {spare}")
        self.spare = spare
        self.length = nn.Linear(settings.d_model, settings.target_size)

    def forward(
        self, source: Int[Tensor, "batch source"], shown: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq target_size"]:
        """Score the length at the first place, and at the others the symbols: in one pass.

        In training, lengths and symbols are hidden by chance, as the class says; else each target
        is given its length, and no symbol.

        Raises:
            ValueError: as ``encode``, or if a row of ``shown`` does not begin with ``BEGIN_ID`` and
                a length of at least 1, as ``with_length`` makes them.
        """
        if shown.ndim != 2 or len(shown) == 0:
            raise ValueError(
                f"targets must be (batch, seq) and not empty, got shape {tuple(shown.shape)}"
            )
        memory, memory_mask = self.encode(source)
        if shown.shape[1] < 2 or (shown[:, 0] != BEGIN_ID).any() or (shown[:, 1] < 1).any():
            raise ValueError(
                "targets must begin with BEGIN_ID and a length of at least 1 (with_length), "
                f"got {shown[:, :2].tolist()} in the shape {tuple(shown.shape)}"
            )
        visible, known = shown[:, 1], torch.zeros_like(shown[:, 2:], dtype=torch.bool)
        if self.training:
            told, share = torch.rand(2, len(shown), device=shown.device)
            given = told < 0.5
            visible = torch.where(given, visible, self.room(memory_mask))
            known = torch.rand(known.shape, device=shown.device) < (given * share)[:, None]
        places = max(shown.shape[1] - 1, int(visible.max()))
        symbols = shown[:, 2:].masked_fill(~known | (shown[:, 2:] <= STOP_ID), BEGIN_ID)
        inputs = F.pad(symbols, (0, places - symbols.shape[1]), value=BEGIN_ID)
        logits = self.fill(inputs, memory, memory_mask, visible)[:, : shown.shape[1] - 1]
        return torch.cat([self.length_logits(memory, memory_mask)[:, None], logits], dim=1)

    def fill(
        self,
        inputs: Int[Tensor, "rows seq"],
        memory: Sequence[Memory],
        memory_mask: PaddingMask,
        visible: Int[Tensor, "lengths"],
    ) -> Float[Tensor, "rows seq target_size"]:
        """Score the symbol of each place; ``BEGIN_ID`` in ``inputs`` says that it is not known.

        Raises:
            ValueError: if there are not as many inputs as sources, or not memories for each block
                of the decoder, a number of ``visible`` places is negative or larger than ``seq``,
                or ``seq`` is larger than ``max_len``.
        """
        if inputs.ndim != 2 or visible.ndim != 1:
            raise ValueError(
                "inputs must be (rows, seq) and visible (rows,), "
                f"got shapes {tuple(inputs.shape)} and {tuple(visible.shape)}"
            )
        if len(visible) != len(inputs):
            raise ValueError(f"{len(visible)} lengths for {len(inputs)} inputs")
        self._check_memory(inputs, memory, memory_mask)
        x = self._embed(self.target_embedding, inputs)
        mask = self.may_see(visible, inputs.shape[1])
        for block, keys_values in zip(self.decoder, memory, strict=True):
            x, _ = block(x, keys_values, mask=mask, memory_mask=memory_mask)
        return self.output(self.norm(x))

    def may_see(self, visible: Lengths, seq: int) -> Bool[Tensor, "batch 1 #seq seq"]:
        """Let each place see every place that there is, before and behind it."""
        return padding_mask(visible, seq)

    def length_logits(
        self, memory: Sequence[Memory], memory_mask: PaddingMask
    ) -> Float[Tensor, "batch target_size"]:
        """Score how many symbols to write; class 0 is none."""
        values = memory[-1][1].transpose(1, 2).flatten(2)  # what was read, turned by one matrix
        return self.length(mean_pool(values, memory_mask.sum(-1).flatten()))

    def room(self, memory_mask: PaddingMask) -> Lengths:
        """Count the places that a target is given whose length is not known."""
        return (memory_mask.sum(-1).flatten() + self.spare).clamp(max=self.settings.max_len)


def with_length(target: Int[Tensor, "seq"]) -> Int[Tensor, "one_more"]:
    """Put a target's length behind its begin token: the first thing that is asked.

    Raises:
        ValueError: if it has not a begin token, at least one symbol and a stop token, or is no row
            of integers.
    """
    if target.ndim != 1 or target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(
            f"a target must be ids (seq,), got {target.dtype} of shape {tuple(target.shape)}"
        )
    if len(target) < 3 or target[0] != BEGIN_ID or target[-1] != STOP_ID:
        raise ValueError(
            "a target must have a begin token, at least one symbol and a stop token, "
            f"got {target.tolist()}"
        )
    return torch.cat([target[:1], target.new_tensor([len(target) - 2]), target[1:]])


@torch.no_grad()
def cut_at_stop(
    model: NonAutoregressive, source: Int[Tensor, "batch source"]
) -> list[Int[Tensor, "_"]]:
    """Write all the room at once, and keep what stands before the first stop token.

    Raises:
        ValueError: if the source is empty or a row of it is nothing but padding.
    """
    with evaluating(model):
        memory, memory_mask = model.encode(source)
        room = model.room(memory_mask)
        inputs = torch.full((len(source), int(room.max())), BEGIN_ID, device=source.device)
        tokens = model.fill(inputs, memory, memory_mask, room)[..., STOP_ID:].argmax(-1) + STOP_ID
    answers = [row[:places] for row, places in zip(tokens, room, strict=True)]
    return [row[: [*row.tolist(), STOP_ID].index(STOP_ID)] for row in answers]


@torch.no_grad()
def mask_predict(
    model: NonAutoregressive,
    source: Int[Tensor, "batch source"],
    *,
    n_passes: int = 1,
    lengths: Int[Tensor, "lengths"] | None = None,
) -> list[Int[Tensor, "_"]]:
    """Write as many symbols as the length says, then doubt the least certain ones again.

    Pass t of T hides ``n * (T - t + 1) / T`` of n symbols, rounded down, those with the lowest
    probability, and writes them anew from the source and those that stay. With one pass, the
    symbols do not know of one another.

    Args:
        model: the model.
        source: what is read.
        n_passes: T.
        lengths: how many symbols to write, 0 for none; by default the likeliest above 0.

    Raises:
        ValueError: if the source is empty or a row of it is nothing but padding, ``n_passes`` is
            below 1, or there is not one length in 0 .. ``max_len`` for each source.
    """
    if n_passes < 1:
        raise ValueError(f"n_passes must be at least 1, got {n_passes}")
    with evaluating(model):
        memory, memory_mask = model.encode(source)
        longest = model.settings.max_len
        if lengths is None:
            told = model.length_logits(memory, memory_mask)[:, 1:].argmax(-1) + 1
            lengths = told.clamp(max=longest)
        _check_lengths(lengths, source, longest)
        seq = max(1, int(lengths.max()))
        tokens = torch.full((len(source), seq), BEGIN_ID, device=source.device)
        certainty = torch.full(tokens.shape, torch.inf, device=source.device)
        hidden = padding_mask(lengths, seq)[:, 0, 0]
        for t in range(1, n_passes + 1):
            logits = model.fill(tokens.masked_fill(hidden, BEGIN_ID), memory, memory_mask, lengths)
            # Never padding, a begin or a stop token: the length has said that a symbol is here.
            best = logits[..., STOP_ID + 1 :].softmax(-1).max(-1)
            tokens = torch.where(hidden, best.indices + STOP_ID + 1, tokens)
            certainty = torch.where(hidden, best.values, certainty)
            hidden = lowest(certainty, lengths * (n_passes - t) // n_passes)  # for the next pass
    return [row[:length] for row, length in zip(tokens, lengths, strict=True)]


def lowest(
    certainty: Float[Tensor, "batch seq"], count: Int[Tensor, "batch"]
) -> Bool[Tensor, "batch seq"]:
    """Mark the so many lowest numbers of each row; of equal ones, those further to the left.

    Raises:
        ValueError: if there is not one whole number for each row of real ones.
    """
    if certainty.ndim != 2 or count.shape != certainty.shape[:1]:
        raise ValueError(
            "certainty must be (batch, seq) with one count for each row, "
            f"got shapes {tuple(certainty.shape)} and {tuple(count.shape)}"
        )
    whole = not count.is_floating_point() and count.dtype != torch.bool
    if not whole or not certainty.is_floating_point():
        raise ValueError(
            "certainty must be real numbers, count integers, "
            f"got {certainty.dtype} and {count.dtype}"
        )
    rank = certainty.argsort(dim=-1, stable=True).argsort(dim=-1)
    return rank < count[:, None]


def is_mixture(answer: Sequence, right: Sequence[Sequence]) -> bool:
    """Tell whether an answer is none of the right ones, yet at each place like one of two of them.

    Both must be as long as the answer: symbols are compared place by place.
    """
    same = [list(one) for one in right if len(one) == len(answer)]
    return list(answer) not in [list(one) for one in right] and any(
        all(symbol in pair for symbol, *pair in zip(answer, a, b, strict=True))
        for a, b in itertools.combinations(same, 2)
    )


def _check_lengths(lengths: Tensor, source: Tensor, longest: int) -> None:
    fits = lengths.shape == source.shape[:1]
    if not fits or not 0 <= int(lengths.min()) <= int(lengths.max()) <= longest:
        raise ValueError(
            f"each of {len(source)} sources needs a length in 0 .. {longest}, "
            f"got {lengths.tolist()}"
        )
