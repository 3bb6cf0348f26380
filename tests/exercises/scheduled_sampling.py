"""Answers to the exercises of chapter 14."""

import math

import torch

from transformer_lit.exercises import scheduled_sampling as check
from transformer_lit.scheduled_sampling import likeliest

RIGHT, WRONG = {}, {}

# ---- accuracy


def limit(a, b):
    return b / (1 - a + b)


def chain(t, a, b):
    return limit(a, b) + (1 - limit(a, b)) * (a - b) ** t


RIGHT[check.accuracy] = [chain]

WRONG[check.accuracy] = [
    (lambda t, a, b: a**t, "without any error up to place t"),
    (lambda t, a, b: a, "with the truth as prefix"),
    (lambda t, a, b: chain(t + 1, a, b), "one place further"),
    (lambda t, a, b: chain(t - 1, a, b), "one place too early"),
    (lambda t, a, b: chain(t, b, a), "a belongs to a right symbol"),
    (lambda t, a, b: limit(a, b), "after many places"),
    (lambda t, a, b: 0.1, "it is 0.8440, got 0.1000"),
]


# ---- half

RIGHT[check.half] = [lambda k: k * math.log(k), lambda k: round(k * math.log(k), 3)]

WRONG[check.half] = [
    (lambda k: math.log(k), "multiply by it"),
    (lambda k: k, "k / (k + e)"),
    (lambda k: k * math.log10(k), "natural logarithm"),
    (lambda k: -k * math.log(k), "the sign"),
    (lambda k: math.exp(k), "turn exp(i / k) = k around"),
    (lambda k: 3, "it is 59.9, got 3.0"),
]


# ---- learned

RIGHT[check.learned] = [lambda eps: (1 + eps) / 2]

WRONG[check.learned] = [
    (lambda eps: 1, "that is the language"),
    (lambda eps: eps, "half of the time, too"),
    (lambda eps: 1 - eps / 2, "not of the own symbol"),
    (lambda eps: 0.5, "for eps = 0 only"),
    (lambda eps: 0.1, "it is 0.60, got 0.10"),
]


# ---- passes


def repeated(model, shown, memory, memory_mask, keep, n_passes, again=True, shift=True):
    inputs = shown
    for _ in range(n_passes):
        own = likeliest(model.decode(inputs if again else shown, memory, memory_mask))
        if shift:
            own = torch.cat([shown[:, :1], own[:, :-1]], 1)
        inputs = torch.where(keep, shown, own)
    return inputs


RIGHT[check.passes] = [repeated]

WRONG[check.passes] = [
    (lambda m, s, *rest: repeated(m, s, *rest, again=False), "reads the truth again"),
    (lambda m, s, *rest: repeated(m, s, *rest, shift=False), "shift by one"),
    (
        lambda m, s, memory, mask, keep, n: repeated(m, s, memory, mask, ~keep | (s == 1), n),
        "this is the inverse",
    ),
    (lambda m, s, *rest: repeated(m, s, *rest[:-1], rest[-1] + 1), "one pass too many"),
    (lambda m, s, *rest: repeated(m, s, *rest[:-1], rest[-1] - 1), "one pass too few"),
    (lambda m, s, *rest: s[:, 1:], "of shape (7, 5)"),
    (lambda m, s, *rest: torch.zeros_like(s), "after 1 passes the first row"),
]
