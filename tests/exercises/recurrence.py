"""Answers to the exercises of chapter 19."""

import itertools
import math

import torch

from transformer_lit.exercises import recurrence as check

RIGHT, WRONG = {}, {}

# ---- kept

RIGHT[check.kept] = [lambda n, d, layers: (8 * d * layers, 8 * d * layers * n)]

WRONG[check.kept] = [
    (lambda n, d, k: (8 * d * k * n, 8 * d * k), "the LSTM comes first"),
    (lambda n, d, k: (4 * d * k, 8 * d * k * n), "h and c"),
    (lambda n, d, k: (8 * d * k, 4 * d * k * n), "key and value"),
    (lambda n, d, k: (2 * d * k, 2 * d * k * n), "has 4 bytes"),
    (lambda n, d, k: (8 * d, 8 * d * n), "each layer"),
    (lambda n, d, k: (8 * d * k * n, 8 * d * k * n), "over the old one"),
    (lambda n, d, k: (1, 2), "it is (120, 840), got (1, 2)"),
    (lambda n, d, k: 8 * d * k, "return two numbers"),
]


# ---- surely_gone


def steps(s, eps):
    return math.floor(math.log(eps) / math.log(s)) + 1


def counted(s, eps):
    return next(k for k in itertools.count(1) if s**k < eps)


RIGHT[check.surely_gone] = [steps, counted]

WRONG[check.surely_gone] = [
    (lambda s, eps: math.log(eps) / math.log(s), "first whole step"),
    (lambda s, eps: steps(s, eps) - 1, "not below eps yet"),
    (lambda s, eps: steps(s, eps) + 1, "one step earlier"),
    (lambda s, eps: math.floor((1 - eps) / (1 - s)) + 1, "s ** k"),
    (lambda s, eps: math.floor(math.log(1 / eps) / (1 - s)) + 1, "log s for s - 1"),
    (lambda s, eps: 100, "it is 66, got 100"),
]


# ---- gru


def parts(from_input, from_state):
    (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
    return (xr + hr).sigmoid(), (xz + hz).sigmoid(), xn, hn


def gru(from_input, from_state, h):
    r, z, xn, hn = parts(from_input, from_state)
    return (1 - z) * (xn + r * hn).tanh() + z * h


def variant(formula):
    return lambda a, b, h: formula(*parts(a, b), h)


RIGHT[check.gru] = [gru]

WRONG[check.gru] = [
    (variant(formula), hint)
    for formula, hint in [
        (lambda r, z, xn, hn, h: z * (xn + r * hn).tanh() + (1 - z) * h, "shares are swapped"),
        (lambda r, z, xn, hn, h: (1 - z) * (xn + hn).tanh() + z * h, "reset gate is missing"),
        (lambda r, z, xn, hn, h: (1 - z) * (r * (xn + hn)).tanh() + z * h, "not the input's part"),
        (lambda r, z, xn, hn, h: (1 - z) * (xn + r * hn) + z * h, "through a tanh"),
        (lambda r, z, xn, hn, h: (1 - r) * (xn + z * hn).tanh() + r * h, "r and z are swapped"),
        (lambda r, z, xn, hn, h: (1 - z) * (xn + r * hn).tanh(), "old state is missing"),
        (lambda r, z, xn, hn, h: h, "not that of PyTorch's cell"),
        (lambda r, z, xn, hn, h: h[0], "of shape (2, 5)"),
    ]
]


# ---- scan


def scan(f, b):
    shift = 1
    while shift < len(b):
        before, factor = b.roll(shift), f.roll(shift)
        before[:shift], factor[:shift] = 0, 1
        f, b = f * factor, b + f * before
        shift *= 2
    return b


def loop(f, b):
    states, c = [], torch.zeros((), dtype=b.dtype)
    for factor, addend in zip(f, b, strict=True):
        c = factor * c + addend
        states.append(c)
    return torch.stack(states)


def one_round(f, b):
    once = b.clone()
    once[1:] += f[1:] * b[:-1]
    return once


def factors_forgotten(f, b):
    shift = 1
    while shift < len(b):
        before = b.roll(shift)
        before[:shift] = 0
        b = b + f * before
        shift *= 2
    return b


RIGHT[check.scan] = [scan]

WRONG[check.scan] = [
    (loop, "37 products one after the other"),
    (one_round, "that is one round"),
    (lambda f, b: b.cumsum(0), "the factors are missing"),
    (factors_forgotten, "the factors are joined too"),
    (lambda f, b: b[:0], "of shape (1,)"),
]
