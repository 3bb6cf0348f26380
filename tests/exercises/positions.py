"""Answers to the exercises of chapter 06."""

import math

import torch

from transformer_lit.exercises import positions as check
from transformer_lit.positions import sinusoids

RIGHT, WRONG = {}, {}

# ---- full_turns

turns = [22 / 10_000 ** (2 * i / 64) / (2 * math.pi) for i in range(32)]

RIGHT[check.full_turns] = [5, sum(turn >= 1 for turn in turns)]

WRONG[check.full_turns] = [
    (4, "i = 0"),
    (10, "two"),
    (11, "2 * pi, not 1"),
    (8, "half a turn"),
    (9, "not i / d"),
    (27, "do not get round"),
    (32, "32 is not it"),
]


# ---- halves


def sines_and_cosines(max_len, d_model):
    table = sinusoids(max_len, d_model)
    return table[:, 0::2], table[:, 1::2]


def angles(max_len, d_model, exponent):
    columns = [exponent(i) for i in range(d_model // 2)]
    return torch.arange(max_len)[:, None] / 10_000 ** torch.tensor(columns)


def joined(angle):
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


RIGHT[check.halves] = [
    lambda n, d: torch.cat(sines_and_cosines(n, d), dim=-1),
    lambda n, d: joined(angles(n, d, lambda i: 2 * i / d)),
]

WRONG[check.halves] = [
    (sinusoids, "still take turns"),
    (lambda n, d: torch.cat(sines_and_cosines(n, d)[::-1], dim=-1), "sines first"),
    (lambda n, d: torch.cat(sines_and_cosines(n, d)).reshape(n, d), "read across"),
    (
        lambda n, d: torch.cat([t.flip(-1) for t in sines_and_cosines(n, d)], dim=-1),
        "slowest wave comes first",
    ),
    (lambda n, d: joined(angles(n, d, lambda i: i / d)), "the exponent is 2i / d"),
    (lambda n, d: joined(angles(n, d, lambda i: 2 * i / (d - 2))), "(d - 2) / d"),
    (lambda n, d: torch.cat(sines_and_cosines(n, d)), "shape (7, 10), got (14, 5)"),
    (lambda n, d: sinusoids(n, d).tolist(), "should be a tensor, got list"),
    (lambda n, d: torch.zeros(n, d), "got 0.0000"),
]


# ---- product


def cosines(distance, d_model, *, pairs=None, exponent=2.0, f=math.cos):
    pairs = d_model // 2 if pairs is None else pairs
    return sum(f(distance / 10_000 ** (exponent * i / d_model)) for i in range(pairs))


RIGHT[check.product] = [cosines, lambda k, d: (lambda t: t[0] @ t[-1])(sinusoids(abs(k) + 1, d))]

WRONG[check.product] = [
    (lambda k, d: 2 * cosines(k, d), "one cosine for each pair"),
    (lambda k, d: cosines(k, d) / (d / 2), "cosine similarity"),
    (lambda k, d: cosines(k, d, f=math.sin), "sines drop out"),
    (lambda k, d: cosines(k, d, exponent=1), "the exponent is 2i / d"),
    (lambda k, d: cosines(k, d, pairs=d), "i goes up to d / 2"),
    (lambda k, d: 17, "got 17.000"),
]


# ---- counted


def since_the_first(real):
    return (real.cumsum(1) - 1).clamp(min=0) * real


RIGHT[check.counted] = [since_the_first]

WRONG[check.counted] = [
    (lambda real: torch.arange(5).expand(3, -1), "padding on the left too"),
    (lambda real: real.cumsum(1), "from 0, not from 1"),
    (lambda real: real.cumsum(1) - 1, "place -1"),
    (lambda real: (real.cumsum(1) - 1).clamp(min=0), "padding should have place 0"),
    (lambda real: torch.zeros(3, 5).long(), "it is [0, 0, 0, 1, 2], got [0, 0, 0, 0, 0]"),
    (lambda real: torch.arange(5), "got shape (5,)"),
    (lambda real: [[0] * 5] * 3, "should be a tensor of shape (3, 5)"),
]
