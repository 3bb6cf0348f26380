"""Answers to the exercises of chapter 17."""

import math

import torch
from einops import rearrange

from transformer_lit.exercises import sequences as check

RIGHT, WRONG = {}, {}

# ---- n_symbols

RIGHT[check.n_symbols] = [lambda phrases, words: 2 * phrases + words]

WRONG[check.n_symbols] = [
    (lambda p, w: p + w, "opened and closed"),
    (lambda p, w: 2 * (p + w), "a word has no brackets"),
    (lambda p, w: 2 * p, "each word has its tag"),
    (lambda p, w: 2 * p + w + 2, "begin and stop token"),
    (lambda p, w: 3 * p + w if p else w, "are one symbol"),
    (lambda p, w: 99, "with 4 phrases and 3 words it is 11: 99"),
]


# ---- closed


def open_phrases(symbols):
    still_open = []
    for symbol in symbols:
        if symbol.startswith("("):
            still_open.append(symbol[1:])
        elif symbol.startswith(")"):
            still_open.pop()
    return still_open


def closed(symbols):
    return [*symbols, *(f"){label}" for label in reversed(open_phrases(symbols)))]


RIGHT[check.closed] = [closed]

WRONG[check.closed] = [
    (lambda s: s, "nothing was added"),
    (lambda s: [*s, *(f"){x}" for x in open_phrases(s))], "opened last is closed first"),
    (lambda s: [*s, *(f"){x[1:]}" for x in s[::-1] if x[0] == "(")], "closed already"),
    (lambda s: closed(s)[1:], "add to its end only"),
    (lambda s: [*s, *(["S"] if open_phrases(s) else [])], "cannot be read"),
    (lambda s: " ".join(closed(s)), "return a list of symbols, got str"),
]


# ---- least_loss

RIGHT[check.least_loss] = [lambda k: math.log(math.factorial(k))]

WRONG[check.least_loss] = [
    (lambda k: math.factorial(k), "not its logarithm"),
    (lambda k: math.log2(math.factorial(k)), "not that to base 2"),
    (lambda k: k * math.log(k), "written twice"),
    (lambda k: math.log(k), "first symbol alone"),
    (lambda k: math.log(math.factorial(k)) / k, "per symbol"),
    (lambda k: -math.log(math.factorial(k)), "minus the logarithm"),
    (lambda k: 0.5, "for 3 labels it is 1.792 nats, got 0.500"),
]


# ---- to_picture


def to_picture(tokens, patch, levels, width, *, less=1, scaled=True, form="(y a) (x b)"):
    digits = (tokens[:, None] - less) // levels ** torch.arange(patch**2) % levels
    digits = digits / (levels - 1) if scaled else digits
    return rearrange(digits, f"(y x) (a b) -> {form}", x=width // patch, a=patch)


def turned(tokens, patch, levels, width):
    digits = (tokens[:, None] - 1) // levels ** torch.arange(patch**2).flip(0) % levels
    return rearrange(digits / (levels - 1), "(y x) (a b) -> (y a) (x b)", x=width // patch, a=patch)


RIGHT[check.to_picture] = [to_picture]

WRONG[check.to_picture] = [
    (lambda *given: to_picture(*given, scaled=False) + 0.0, "divide by levels - 1"),
    (lambda *given: to_picture(*given).T, "its shape should be (4, 6)"),
    (lambda *given: to_picture(*given).tolist(), "a tensor, got list"),
    (lambda *given: to_picture(*given) + 1, "One was added to each id"),
    (turned, "turned round"),
    (lambda t, p, n, w: to_picture(t, p, n, w, form="y x a b").reshape(-1, w), "lie flat"),
    (lambda *given: to_picture(*given, less=0), "with squares of 2 and 2 levels"),
]
