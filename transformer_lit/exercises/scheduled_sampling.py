"""The checks of chapter 14, exposure bias."""

import math

import torch

from transformer_lit.encoder_decoder import BEGIN_ID, EncoderDecoder, Settings
from transformer_lit.exercises import Mistake, exercise
from transformer_lit.scheduled_sampling import likeliest


@exercise
def accuracy(answer):
    """Check a function from t, a and b to the share of right symbols at place t = 1, 2, ..."""
    for t, a, b in ((3, 0.9, 0.5), (1, 0.8, 0.3), (7, 0.6, 0.2)):
        right = _chain(t, a, b)
        found = float(answer(t, a, b))
        if math.isclose(found, right, abs_tol=1e-6):
            continue
        hints = {
            a**t: "that is the share of words without any error up to place t. A symbol can be "
            "right behind a wrong one.",
            a: "that is the share with the truth as prefix, the same at every place.",
            _chain(t + 1, a, b): "that is one place further: at place 1 nothing wrong was written.",
            _chain(t - 1, a, b) if t > 1 else 1.0: "that is one place too early: the first symbol "
            "is right with probability a.",
            _chain(t, b, a): "a belongs to a right symbol before, b to a wrong one.",
            b / (1 - a + b): "that is where it ends after many places.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        raise Mistake(f"for t = {t}, a = {a} and b = {b} it is {right:.4f}, got {found:.4f}.")


def _chain(t: int, a: float, b: float) -> float:
    share = 1.0
    for _ in range(t):
        share = a * share + b * (1 - share)
    return share


@exercise
def half(answer):
    """Check a function from k to the step at which the inverse sigmoid is one half."""
    for k in (20.0, 200.0, 2.0):
        right, found = k * math.log(k), float(answer(k))
        if math.isclose(found, right, rel_tol=1e-3, abs_tol=1e-3):
            continue
        hints = {
            math.log(k): "the step is divided by k in the formula: multiply by it.",
            k: "at step k the fraction is k / (k + e), which is not one half.",
            k * math.log10(k): "exp goes with the natural logarithm.",
            -k * math.log(k): "the sign: exp(i / k) grows with the step.",
            math.exp(k): "turn exp(i / k) = k around: it is i that you want.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, rel_tol=1e-3, abs_tol=1e-3):
                raise Mistake(hint)
        raise Mistake(f"for k = {k:g} it is {right:.1f}, got {found:.1f}.")


@exercise
def learned(answer):
    """Check a function from eps to the probability of B behind an A that is learned."""
    for eps in (0.2, 0.0, 1.0, 0.5):
        right, found = (1 + eps) / 2, float(answer(eps))
        if math.isclose(found, right, abs_tol=1e-6):
            continue
        hints = {
            1.0: "that is the language. An A that the model wrote itself can stand where the truth "
            "has a B, and then the label behind it is an A.",
            eps: "an own A is behind its label's B half of the time, too.",
            1 - eps / 2: "eps is the probability of the truth, not of the own symbol.",
            0.5: "that is right for eps = 0 only: with the truth shown, the label is always B.",
            1 - eps: "eps is the probability of the truth, not of the own symbol.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        raise Mistake(f"for eps = {eps} it is {right:.2f}, got {found:.2f}.")


@exercise
def passes(answer):
    """Check a function that makes a decoder's input by several passes, each reading the last."""
    rng = torch.Generator().manual_seed(0)
    model = _model()
    source = torch.randint(1, 11, (7, 3), generator=rng)
    shown = torch.randint(3, 17, (7, 5), generator=rng)
    shown[:, 0] = BEGIN_ID
    keep = torch.rand(shown.shape, generator=rng) < 0.3
    keep[:, 0] = True
    memory, mask = model.encode(source)
    for n_passes in (1, 2, 4):
        right = _passes(model, shown, memory, mask, keep, n_passes)
        found = answer(model, shown.clone(), memory, mask, keep.clone(), n_passes)
        if not isinstance(found, torch.Tensor) or found.shape != shown.shape:
            raise Mistake(f"the answer should be a tensor of ids of shape {tuple(shown.shape)}.")
        if torch.equal(found, right):
            continue
        own = likeliest(model.decode(shown, memory, mask))
        mistakes = {
            "keep is True where the truth is shown: this is the inverse.": _passes(
                model, shown, memory, mask, ~keep | (shown == BEGIN_ID), n_passes
            ),
            "what the decoder says at a place is the symbol of the next place: shift by "
            "one.": torch.where(keep, shown, own),
            "each pass reads the truth again. It should read what the pass before has "
            "made.": _passes(model, shown, memory, mask, keep, 1),
            "that is one pass too many.": _passes(model, shown, memory, mask, keep, n_passes + 1),
            "that is one pass too few.": _passes(model, shown, memory, mask, keep, n_passes - 1),
        }
        for hint, wrong in mistakes.items():
            if torch.equal(found, wrong):
                raise Mistake(hint)
        raise Mistake(
            f"after {n_passes} passes the first row should be {right[0].tolist()}, "
            f"got {found[0].tolist()}."
        )


def _passes(model, shown, memory, mask, keep, n_passes):
    inputs = shown
    for _ in range(n_passes):
        own = likeliest(model.decode(inputs, memory, mask))
        inputs = torch.where(keep, shown, torch.cat([shown[:, :1], own[:, :-1]], 1))
    return inputs


def _model() -> EncoderDecoder:
    """A small model whose answers depend on all that it reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = Settings(
            source_size=11, target_size=17, d_model=16, n_heads=2, n_layers=2, d_ff=23, dropout=0.0
        )
        model = EncoderDecoder(settings).eval()
    for name, parameter in model.decoder.named_parameters():
        parameter.requires_grad_(False)
        if name.endswith("weight") and parameter.ndim == 2:
            parameter.mul_(3)
    return model.requires_grad_(False)
