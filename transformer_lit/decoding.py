"""Decoding: write a sequence symbol by symbol, and measure how wrong it is.

Chapter: https://transformer-lit.github.io/transformer_lit/book/13-generating.html
Paper: Wu et al. 2016, section 7, https://arxiv.org/abs/1609.08144 (beam search, length);
    Fan et al. 2018, section 5.4, https://aclanthology.org/P18-1082/ (top-k);
    Holtzman et al. 2020, section 3.1, https://arxiv.org/abs/1904.09751 (top-p).
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jiwer
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID, STOP_ID, EncoderDecoder


@dataclass(frozen=True)
class Hypothesis:
    """One written sequence.

    Args:
        tokens: the symbols, without begin and stop token.
        log_probs: the log-probability of each symbol given those before it, in nats; of the stop
            token too, where there is one.
        stopped: whether the stop token was written, rather than ``max_len`` reached.
    """

    tokens: Int[Tensor, "seq"]
    log_probs: Float[Tensor, "written"]
    stopped: bool

    @property
    def log_prob(self) -> float:
        """The log-probability of the whole sequence, in nats."""
        return float(self.log_probs.sum())

    def score(self, alpha: float) -> float:
        """The log-probability divided by ``length ** alpha``, the stop token counted."""
        return self.log_prob / len(self.log_probs) ** alpha


@torch.no_grad()
def greedy(
    model: EncoderDecoder, source: Int[Tensor, "batch source"], *, max_len: int
) -> list[Hypothesis]:
    """Write the likeliest symbol each time, until the stop token or ``max_len`` symbols.

    Raises:
        ValueError: if the source is empty, a row of it is nothing but padding, or ``max_len`` lies
            outside 1 .. that of the model.
    """
    return _write(model, source, max_len, lambda logits: logits.max(-1).indices)


@torch.no_grad()
def sample(
    model: EncoderDecoder,
    source: Int[Tensor, "batch source"],
    *,
    max_len: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[Hypothesis]:
    """Draw each symbol at random, by its probability.

    Args:
        model: the model.
        source: what it reads.
        max_len: the most symbols written, the stop token counted.
        temperature: logits are divided by it: below 1 the likely become likelier.
        top_k: draw from so many of the likeliest symbols only.
        top_p: draw from the fewest likeliest symbols only that have this probability together.
        generator: where the random numbers come from.

    Raises:
        ValueError: as ``greedy``, or as ``truncate``.
    """

    def draw(logits: Tensor) -> Tensor:
        logits = truncate(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

    return _write(model, source, max_len, draw)


def truncate(
    logits: Float[Tensor, "batch vocab_size"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Float[Tensor, "batch vocab_size"]:
    """Divide logits by the temperature, and set those outside ``top_k`` and ``top_p`` to -inf.

    Raises:
        ValueError: if ``temperature`` is not above 0, ``top_k`` is below 1, or ``top_p`` lies
            outside (0, 1].
    """
    if not 0 < temperature < torch.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    logits, order = (logits / temperature).sort(descending=True, stable=True)
    probs = logits.softmax(-1)
    # The likelier ones together, this one left out: the symbol that crosses top_p is kept.
    cut = probs.cumsum(-1) - probs >= top_p
    if top_k is not None:
        cut[:, top_k:] = True
    cut[:, 0] = False
    logits = logits.masked_fill(cut, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, order, logits)


@torch.no_grad()
def beam(
    model: EncoderDecoder,
    source: Int[Tensor, "batch source"],
    *,
    n_beams: int,
    max_len: int,
    alpha: float = 1.0,
) -> list[list[Hypothesis]]:
    """Keep the ``n_beams`` likeliest beginnings; return the best whole sequences, best first.

    Finished sequences compete by their score, the log-probability divided by ``length ** alpha``.
    A search ends when no beginning can become better than what is finished. Only where nothing
    finished, what was cut off at ``max_len`` is returned.

    Raises:
        ValueError: as ``greedy``, or if ``n_beams`` is below 1 or ``alpha`` negative.
    """
    if n_beams < 1:
        raise ValueError(f"n_beams must be at least 1, got {n_beams}")
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    with _evaluating(model):
        state = model.start(source, max_len)
        batch = len(source)
        token = torch.full((batch,), BEGIN_ID, device=source.device)
        tokens = token.new_empty(batch, 1, 0)
        log_probs = torch.empty(batch, 1, 0, device=source.device)
        finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
        for _ in range(max_len):
            width = tokens.shape[1]
            new = _logits(model, token, state).log_softmax(-1).view(batch, width, -1)
            so_far = log_probs.sum(-1)
            for row, ends in enumerate(finished):
                for i in range(width):
                    if so_far[row, i] > -torch.inf:
                        all_probs = torch.cat([log_probs[row, i], new[row, i, STOP_ID, None]])
                        ends.append(Hypothesis(tokens[row, i], all_probs, True))
                ends.sort(key=lambda end: -end.score(alpha))
                del ends[n_beams:]
            new[..., STOP_ID] = -torch.inf
            total = so_far[..., None] + new
            best, place = total.flatten(1).topk(min(n_beams, total[0].numel()))
            parent, token = place // new.shape[-1], place % new.shape[-1]
            tokens = torch.cat([_pick(tokens, parent), token[..., None]], -1)
            own = new.flatten(1).gather(1, place)
            log_probs = torch.cat([_pick(log_probs, parent), own[..., None]], -1)
            # A score can still rise by growing longer, never by more than this.
            hope = best[:, 0] / max_len**alpha
            if all(
                len(ends) == n_beams and ends[-1].score(alpha) >= hope[row]
                for row, ends in enumerate(finished)
            ):
                break
            first = torch.arange(batch, device=source.device)[:, None] * width
            state.select((first + parent).flatten())
            token = token.flatten()
    return [
        ends or [Hypothesis(*cut, False) for cut in zip(tokens[row], log_probs[row], strict=True)]
        for row, ends in enumerate(finished)
    ]


def error_rates(
    answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, float]:
    """Return the shares of wrong words and of wrong symbols; each word may have several references.

    A word is right if it equals one of its references. Its wrong symbols are those inserted,
    deleted or replaced on the shortest way from its closest reference, divided by the length of
    that reference.

    Raises:
        ValueError: if there are no answers, not as many references, or a reference is empty.
    """
    if len(answers) == 0 or len(answers) != len(references):
        raise ValueError(
            "there must be answers, and references for each, "
            f"got {len(answers)} and {len(references)}"
        )
    words = errors = symbols = 0
    for answer, listed in zip(answers, references, strict=True):
        if not listed or not all(listed):
            raise ValueError(f"each answer needs references that are not empty, got {listed}")
        words += tuple(answer) not in map(tuple, listed)
        made = [_edits(answer, reference) for reference in listed]
        fewest, length = min(made, key=lambda edits: edits[0] / edits[1])
        errors, symbols = errors + fewest, symbols + length
    return words / len(answers), errors / symbols


def _edits(answer: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
    counts = jiwer.process_words(" ".join(reference), " ".join(answer))
    return counts.substitutions + counts.deletions + counts.insertions, len(reference)


def _write(
    model: EncoderDecoder, source: Tensor, max_len: int, choose: Callable[[Tensor], Tensor]
) -> list[Hypothesis]:
    with _evaluating(model):
        state = model.start(source, max_len)
        token = torch.full((len(source),), BEGIN_ID, device=source.device)
        running = torch.ones_like(token, dtype=torch.bool)
        tokens, log_probs = [], []
        while len(tokens) < max_len and running.any():
            logits = _logits(model, token, state)
            token = choose(logits)
            tokens.append(token)
            log_probs.append(logits.log_softmax(-1).gather(-1, token[:, None])[:, 0])
            running &= token != STOP_ID
    hypotheses = []
    for row, probs in zip(torch.stack(tokens, 1), torch.stack(log_probs, 1), strict=True):
        stops = (row == STOP_ID).nonzero()
        length = int(stops[0]) if len(stops) else max_len
        hypotheses.append(Hypothesis(row[:length], probs[: length + 1], len(stops) > 0))
    return hypotheses


def _logits(model: EncoderDecoder, token: Tensor, state) -> Tensor:
    """Padding and the begin token are never written."""
    logits = model.step(token, state).float()
    logits[:, [PAD_ID, BEGIN_ID]] = -torch.inf
    return logits


def _pick(beams: Tensor, parent: Tensor) -> Tensor:
    return beams.gather(1, parent[..., None].expand(*parent.shape, beams.shape[-1]))


@contextmanager
def _evaluating(model: EncoderDecoder):
    """Dropout off while writing, then as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
