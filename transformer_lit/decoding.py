"""Decoding: write a sequence symbol by symbol, and count how much of it is wrong.

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
from torch import Tensor, nn

from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID, STOP_ID, EncoderDecoder, State


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
    return _write(model, source, max_len, lambda log_probs: log_probs.max(-1).indices)


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
    """Draw each symbol at random from what ``truncate`` leaves; ``log_probs`` stay the model's.

    Raises:
        ValueError: as ``greedy``, or as ``truncate``.
    """

    def draw(log_probs: Tensor) -> Tensor:
        left = truncate(log_probs, temperature=temperature, top_k=top_k, top_p=top_p)
        return torch.multinomial(left.softmax(-1), 1, generator=generator)[:, 0]

    return _write(model, source, max_len, draw)


def truncate(
    logits: Float[Tensor, "batch vocab_size"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Float[Tensor, "batch vocab_size"]:
    """Divide logits by the temperature, then set those that are not to be drawn to -inf.

    Args:
        logits: one row per draw.
        temperature: below 1 the likely become likelier, above 1 all become alike.
        top_k: keep so many of the likeliest symbols.
        top_p: of those, keep the fewest likeliest that have this probability together.

    Raises:
        ValueError: if the logits are not real numbers ``(batch, vocab_size)``, ``temperature`` is
            not above 0 and finite, ``top_k`` is no whole number above 0, or ``top_p`` lies outside
            (0, 1].
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            "logits must be real numbers (batch, vocab_size), "
            f"got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    if not 0 < temperature < torch.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if top_k is not None and (top_k < 1 or top_k % 1):
        raise ValueError(f"top_k must be at least 1 and whole, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    logits, order = (logits / temperature).sort(descending=True, stable=True)
    if top_k is not None:
        logits[:, top_k:] = -torch.inf
    if top_p < 1:
        probs = logits.softmax(-1)
        # Those before it, this one left out: the symbol that crosses top_p is kept.
        logits[probs.cumsum(-1) - probs >= top_p] = -torch.inf
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
    """Keep the ``n_beams`` best beginnings at each step; return the whole ones, best first.

    Beginnings and whole sequences compete by their score, the log-probability divided by
    ``length ** alpha``. A search ends when only whole sequences are left. Those cut off at
    ``max_len`` are returned only where nothing is whole.

    Raises:
        ValueError: as ``greedy``, or if ``n_beams`` is below 1 or ``alpha`` negative or not finite.
    """
    if n_beams < 1:
        raise ValueError(f"n_beams must be at least 1, got {n_beams}")
    if not 0 <= alpha < torch.inf:
        raise ValueError(f"alpha must be at least 0 and finite, got {alpha}")
    with evaluating(model):
        state = model.start(source, max_len)
        tokens = torch.full((len(source), 1, 1), BEGIN_ID, device=source.device)
        log_probs = torch.zeros(len(source), 1, 1, device=source.device)
        running = torch.ones(len(source), 1, dtype=torch.bool, device=source.device)
        lengths = torch.zeros(len(source), 1, device=source.device)
        while running.any() and tokens.shape[-1] <= max_len:
            new = _log_probs(model, tokens[..., -1][running], state)
            # What is whole goes on in one way only: by padding, which costs nothing.
            every = new.new_full((*running.shape, new.shape[-1]), -torch.inf)
            every[..., PAD_ID] = 0
            every[running] = new
            lengths = lengths + running
            scores = (log_probs.sum(-1, keepdim=True) + every) / lengths[..., None] ** alpha
            best, place = scores.flatten(1).topk(min(n_beams, scores[0].numel()))
            parent, token = place // new.shape[-1], place % new.shape[-1]
            log_prob = every.flatten(1).gather(1, place)
            tokens = torch.cat([_pick(tokens, parent), token[..., None]], -1)
            log_probs = torch.cat([_pick(log_probs, parent), log_prob[..., None]], -1)
            lengths = lengths.gather(1, parent)
            # The state has a row for each running beginning: find those of the new ones.
            row = (running.flatten().cumsum(0) - 1).view_as(running).gather(1, parent)
            running = (token != STOP_ID) & (token != PAD_ID) & (best > -torch.inf)
            state.select(row[running])
    return [
        _ranked(*beams, alpha) for beams in zip(tokens[..., 1:], log_probs[..., 1:], strict=True)
    ]


def error_rates(
    answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, float]:
    """Return the shares of wrong words and of wrong symbols; each word may have several references.

    A word is right if it equals one of its references. Its wrong symbols are those inserted,
    deleted or replaced on the shortest way from its closest reference; their sum is divided by the
    length of these references.

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
        made = [(_edits(answer, reference), len(reference)) for reference in listed]
        fewest, length = min(made, key=lambda edits: edits[0] / edits[1])
        words, errors, symbols = words + (fewest > 0), errors + fewest, symbols + length
    return words / len(answers), errors / symbols


@contextmanager
def evaluating(model: nn.Module):
    """Turn dropout off while the block runs, and leave the model as it was before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _edits(answer: Sequence[str], reference: Sequence[str]) -> int:
    if tuple(answer) == tuple(reference):
        return 0
    counts = jiwer.process_words(" ".join(reference), " ".join(answer))
    return counts.substitutions + counts.deletions + counts.insertions


def _write(
    model: EncoderDecoder, source: Tensor, max_len: int, choose: Callable[[Tensor], Tensor]
) -> list[Hypothesis]:
    with evaluating(model):
        state = model.start(source, max_len)
        token = torch.full((len(source),), BEGIN_ID, device=source.device)
        running = torch.ones_like(token, dtype=torch.bool)
        tokens: list[Tensor] = []
        log_probs: list[Tensor] = []
        while running.any() and len(tokens) < max_len:
            new = _log_probs(model, token, state)
            token = choose(new)
            tokens.append(token)
            log_probs.append(new.gather(-1, token[:, None])[:, 0])
            running &= token != STOP_ID
    return [
        _cut(*row) for row in zip(torch.stack(tokens, 1), torch.stack(log_probs, 1), strict=True)
    ]


def _log_probs(model: EncoderDecoder, token: Tensor, state: State) -> Tensor:
    logits = model.step(token, state).float()
    logits = logits - logits.amax(-1, keepdim=True)
    # The same as log_softmax. Probabilities below e^-80 change no sum in single precision, but on a
    # CPU an exponential that is almost too small to be written takes ten times as long as others.
    log_probs = logits - logits.clamp(min=-80).exp().sum(-1, keepdim=True).log()
    log_probs[:, PAD_ID] = log_probs[:, BEGIN_ID] = -torch.inf  # never written, however likely
    return log_probs


def _cut(tokens: Tensor, log_probs: Tensor) -> Hypothesis:
    stops = (tokens == STOP_ID).nonzero()
    length = int(stops[0]) if len(stops) else len(tokens)
    return Hypothesis(tokens[:length], log_probs[: length + 1], len(stops) > 0)


def _ranked(tokens: Tensor, log_probs: Tensor, alpha: float) -> list[Hypothesis]:
    """Sort the beams of one source, without those that padding filled up."""
    possible = log_probs.isfinite().all(-1)
    found = [_cut(*row) for row in zip(tokens[possible], log_probs[possible], strict=True)]
    found = [one for one in found if one.stopped] or found
    return sorted(found, key=lambda one: -one.score(alpha))


def _pick(beams: Tensor, parent: Tensor) -> Tensor:
    return beams.gather(1, parent[..., None].expand(*parent.shape, beams.shape[-1]))
