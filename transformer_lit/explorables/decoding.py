"""Decoding step by step: what the pronouncer may write next, what is kept, and what falls away.

Chapter: https://transformer-lit.github.io/transformer_lit/book/13-generating.html

The searches are made when the figure is made, and saved with it, so that it needs no kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import traitlets
from jaxtyping import Int
from torch import Tensor

from transformer_lit.checkpoints import Pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID, STOP_ID, EncoderDecoder
from transformer_lit.explorables import Explorable

WIDTHS = (1, 2, 5)
SHOWN = 5  # candidates in each row


class Candidate(NamedTuple):
    """One way to go on: from a candidate of the row before, by one symbol.

    Args:
        parent: which candidate of the row before it lengthens; 0 in the first row.
        token: the symbol; ``PAD_ID`` for a whole sequence, which stays as it is.
        prob: the probability of the symbol, 1 for a whole sequence.
        score: the mean log-probability of all its symbols, by which the search ranks.
    """

    parent: int
    token: int
    prob: float
    score: float


@torch.no_grad()
def search(
    model: EncoderDecoder, source: Int[Tensor, "1 source"], *, n_beams: int, max_len: int
) -> list[list[Candidate]]:
    """Search as ``decoding.beam`` does with ``alpha=1``, and return the best five of each step.

    The first ``n_beams`` of each row are kept, the others fall away. One beam is greedy decoding.

    Raises:
        ValueError: if ``n_beams`` lies outside 1 .. 5, or as ``EncoderDecoder.start``.
    """
    if not 1 <= n_beams <= SHOWN:
        raise ValueError(f"n_beams must lie in 1 .. {SHOWN}, got {n_beams}")
    state = model.start(source, max_len)
    rows: list[list[Candidate]] = []
    before: dict[int, int] = {}
    kept = [(Candidate(0, BEGIN_ID, 1.0, 0.0), 0.0, 0)]  # with log-probability and length
    while any(one.token not in (PAD_ID, STOP_ID) for one, *_ in kept) and len(rows) < max_len:
        running = [i for i, (one, *_) in enumerate(kept) if one.token not in (PAD_ID, STOP_ID)]
        if rows:
            state.select(torch.tensor([before[kept[i][0].parent] for i in running]))
        before = {i: row for row, i in enumerate(running)}
        newest = torch.tensor([kept[i][0].token for i in running])
        log_probs = model.step(newest, state).log_softmax(-1)
        log_probs[:, [PAD_ID, BEGIN_ID]] = -torch.inf
        longer = [
            (Candidate(i, PAD_ID, 1.0, one.score), log_prob, length)
            for i, (one, log_prob, length) in enumerate(kept)
            if i not in before
        ]
        for i, row in zip(running, log_probs, strict=True):
            _, log_prob, length = kept[i]
            top = row.topk(min(SHOWN, int(row.isfinite().sum())))
            for new, token in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                total = log_prob + new
                prob = float(torch.tensor(new).exp())
                one = Candidate(i, token, prob, total / (length + 1))
                longer.append((one, total, length + 1))
        best = sorted(longer, key=lambda entry: -entry[0].score)[:SHOWN]
        rows.append([one for one, *_ in best])
        kept = best[:n_beams]
    return rows


class DecodingExplorable(Explorable):
    """The steps of a search, for some words and for one, two and five beams.

    Args:
        pronouncer: the model.
        words: what it reads.
        word: the one that is shown, by default the first.
        n_beams: 1, 2 or 5.
        step: how many steps are shown, cut to those there are.

    Raises:
        ValueError: if a word is one that the pronouncer cannot read.
        traitlets.TraitError: if there is no word, ``word`` is not among them, ``n_beams`` is not
            1, 2 or 5, or ``step`` is below 1.
    """

    # For each word a text per width: a line per step, in it candidates separated by commas.
    searches = traitlets.Dict().tag(sync=True)
    listed = traitlets.Dict().tag(sync=True)  # for each word what the dictionary has, if anything
    word = traitlets.Unicode().tag(sync=True)
    n_beams = traitlets.Enum(WIDTHS, 1).tag(sync=True)
    step = traitlets.Int(1, min=1).tag(sync=True)

    def __init__(
        self,
        pronouncer: Pronouncer,
        words: Sequence[str],
        *,
        word: str | None = None,
        n_beams: int = 1,
        step: int = 1,
    ):
        if len(words) == 0 or (word is not None and word not in words):
            raise traitlets.TraitError(f"{word!r} is not one of the words {list(words)}")
        dictionary = dict(pronunciations.load())
        listed = {known: [" ".join(s) for s in dictionary.get(known, ())] for known in words}
        searches = {}
        for known in words:
            source, model = pronouncer.encode([known]), pronouncer.model
            searches[known] = {
                str(width): self._text(
                    search(model, source, n_beams=width, max_len=model.settings.max_len),
                    pronouncer.phonemes.symbols,
                )
                for width in WIDTHS
            }
        word = words[0] if word is None else word
        super().__init__(searches=searches, listed=listed, word=word, n_beams=n_beams, step=step)

    @staticmethod
    def _text(rows: list[list[Candidate]], symbols: Sequence[str]) -> str:
        return "\n".join(
            ",".join(
                f"{one.parent} {symbols[one.token]} {one.prob:.4f} {one.score:.4f}" for one in row
            )
            for row in rows
        )
