"""The checks of chapter 15, all at once."""

import math

import torch

from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID, Settings
from transformer_lit.exercises import Mistake, exercise
from transformer_lit.non_autoregressive import NonAutoregressive


@exercise
def mixed(answer):
    """Check a function from k to the share of mixtures, two answers that differ at k places."""
    for k in (3, 2, 7, 1):
        right, found = 1 - 2 ** (1 - k), float(answer(k))
        if math.isclose(found, right, abs_tol=1e-9):
            continue
        hints = {
            2.0 ** (1 - k): "that is the share of right answers. The rest are mixtures.",
            1 - 2.0**-k: "two of the 2 ** k answers are right, not one.",
            2.0**-k: "that is the share of one of the two right answers.",
            2.0**k - 2: "that is how many mixtures there are. Divide by all answers.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-9):
                raise Mistake(hint)
        raise Mistake(f"for k = {k} it is {right:.4f}, got {found:.4f}.")


@exercise
def excess(answer):
    """Check a function from k to the nats that a product of places loses at the least."""
    for k in (3, 2, 7, 1):
        right, found = (k - 1) * math.log(2), float(answer(k))
        if math.isclose(found, right, abs_tol=1e-6):
            continue
        hints = {
            k * math.log(2): "that is the loss itself. The best model of whole answers has one "
            "too: it cannot know which of the two it will be.",
            math.log(2): "that is what no model can know: which of the two it will be.",
            float(k - 1): "that is in bits. A nat has the natural logarithm.",
            (1 - k) * math.log(2): "the sign: the loss of the product is the larger one.",
            (k + 1) * math.log(2): "subtract what the best model of whole answers loses.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        raise Mistake(f"for k = {k} it is {right:.4f} nats, got {found:.4f}.")


@exercise
def hidden(answer):
    """Check a function from n, t and T to how many of n symbols pass t hides."""
    for n, t, n_passes in ((7, 2, 3), (6, 1, 3), (10, 4, 4), (3, 2, 8), (5, 3, 3)):
        right, found = n * (n_passes - t + 1) // n_passes, answer(n, t, n_passes)
        if found == right:
            continue
        exact = n * (n_passes - t + 1) / n_passes
        hints = {
            n * (n_passes - t) // n_passes: "that is one pass too late: pass 1 hides all.",
            n - right: "that is how many stay.",
            n * t // n_passes: "it should become fewer from pass to pass.",
            math.ceil(exact): "round down.",
            exact: "round down.",
        }
        for wrong, hint in hints.items():
            if found == wrong:
                raise Mistake(hint)
        raise Mistake(f"pass {t} of {n_passes} hides {right} of {n} symbols, got {found}.")


@exercise
def best_length(answer):
    """Check a function that tries the likeliest lengths, one pass each, and keeps the best."""
    model = _model()
    source = torch.randint(1, 11, (13, 5), generator=torch.Generator().manual_seed(0))
    memory = model.encode(source)
    for n_lengths in (1, 3):
        right = _best(model, memory, n_lengths)
        found = answer(model, source, n_lengths)
        if len(found) != len(source):
            raise Mistake(f"there should be {len(source)} answers, got {len(found)}.")
        if _same(found, right):
            continue
        mistakes = {
            "that prefers short answers: each symbol more makes a sum of log-probabilities lower. "
            "Take their mean.": _best(model, memory, n_lengths, score=torch.sum),
            "that keeps the worst.": _best(
                model, memory, n_lengths, score=lambda log_probs: -log_probs.mean()
            ),
            "class 0 of the length is none: leave it out, and count from 1.": _best(
                model, memory, n_lengths, shift=0
            ),
            "only the likeliest length was tried.": _best(model, memory, 1),
            "all lengths were tried, not the likeliest ones.": _best(model, memory, 16),
        }
        for hint, wrong in mistakes.items():
            if _same(found, wrong):
                raise Mistake(hint)
        row = next(i for i, pair in enumerate(zip(found, right, strict=True)) if not _same(*pair))
        raise Mistake(
            f"with {n_lengths} lengths, answer {row} should be {right[row].tolist()}, "
            f"got {torch.as_tensor(found[row]).tolist()}."
        )


def _same(found, wanted) -> bool:
    return [torch.as_tensor(x).tolist() for x in found] == [
        torch.as_tensor(x).tolist() for x in wanted
    ]


def _best(model, memory, n_lengths, *, score=torch.mean, shift=1):
    best = [(-math.inf, torch.tensor([])) for _ in memory[1]]
    for lengths in model.length_logits(*memory)[:, shift:].topk(n_lengths).indices.t() + shift:
        inputs = torch.full((len(lengths), max(1, int(lengths.max()))), BEGIN_ID)
        logits = model.fill(inputs, *memory, lengths)[..., STOP_ID + 1 :]
        log_probs, tokens = logits.log_softmax(-1).max(-1)
        for row, length in enumerate(lengths):
            worth = float(score(log_probs[row, :length])) if length else -math.inf
            if worth > best[row][0]:
                best[row] = worth, tokens[row, :length] + STOP_ID + 1
    return [tokens for _, tokens in best]


def _model() -> NonAutoregressive:
    """A small model whose answers depend on all that it reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = Settings(
            source_size=11, target_size=17, d_model=16, n_heads=2, n_layers=2, d_ff=23, dropout=0.0
        )
        model = NonAutoregressive(settings).eval()
    model.requires_grad_(False)
    model.length.bias[0] += 0.5  # so that it matters whether none is a length
    for name, parameter in model.decoder.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            parameter.mul_(3)
    return model
