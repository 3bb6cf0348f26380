"""Answers to the exercises of chapter 04."""

import torch

from transformer_lit.exercises import attention as check

RIGHT, WRONG = {}, {}

# ---- twice_the_query

RIGHT[check.twice_the_query] = [[49 / 54, 4 / 54, 1 / 54], torch.tensor([0.907, 0.074, 0.019])]

WRONG[check.twice_the_query] = [
    ([0.7, 0.2, 0.1], "the scores double too"),
    ([1.4, 0.4, 0.2], "weights sum to one"),
    ([0.49, 0.04, 0.01], "must be divided again"),
    ([0.6, 0.3, 0.1], "double them, then take the softmax"),
    ([0.9, 0.1], "double them, then take the softmax"),
]


# ---- cold_softmax

RIGHT[check.cold_softmax] = [lambda scores, t: (scores / t).softmax(-1)]


def overflowing(scores, t):
    exps = (scores / t).exp()
    return exps / exps.sum(-1, keepdim=True)


WRONG[check.cold_softmax] = [
    (lambda s, t: (s * t).softmax(-1), "divide by the temperature"),
    (lambda s, t: (s / t).softmax(-2), "each query's row must sum to one"),
    (lambda s, t: s.softmax(-1) / t, "not the weights"),
    (lambda s, t: s.softmax(-1), "changes nothing"),
    (lambda s, t: (s / t**2).softmax(-1), "came out wrong"),
    (lambda s, t: (s / t).softmax(-1)[0], "a tensor of shape (2, 3) is expected, got (3,)"),
    (lambda s, t: [0.5], "a tensor of shape (2, 3) is expected, got list"),
    (overflowing, "subtract the largest score first"),
    (lambda s, t: s.softmaxed(), "raised AttributeError"),
]


# ---- masked_softmax


def solution(scores, mask):
    allowed = scores.masked_fill(~mask, -1e30)  # finite, so that empty rows stay finite
    exps = (scores - allowed.amax(-1, keepdim=True)).masked_fill(~mask, -torch.inf).exp()
    total = exps.sum(-1, keepdim=True)
    return exps / total.where(total > 0, 1)


def normalised(exps):
    total = exps.sum(-1, keepdim=True)
    return exps / total.where(total > 0, 1)


RIGHT[check.masked_softmax] = [solution]

WRONG[check.masked_softmax] = [
    (lambda s, m: s.masked_fill(m, -torch.inf).softmax(-1), "the wrong way round"),
    (lambda s, m: s.masked_fill(m, -1e9).softmax(-1), "the wrong way round"),
    (lambda s, m: s.softmax(-1) * m, "before the softmax, not after it"),
    (lambda s, m: s.softmax(-1), "left where the mask is False"),
    (lambda s, m: (s * m).softmax(-1), "left where the mask is False"),
    (lambda s, m: s.masked_fill(~m, -torch.inf).softmax(-1), "yours gets NaN"),
    (lambda s, m: s.masked_fill(~m, -1e9).softmax(-1), "still has weights"),
    (lambda s, m: m / m.sum(-1, keepdim=True), "the softmax of their scores alone"),
    (
        lambda s, m: normalised((s - s.amax(-1, keepdim=True)).exp() * m),
        "a hidden score of 300",
    ),
    (lambda s, m: normalised(s.masked_fill(~m, -torch.inf).exp()), "scores of 300 overflow"),
]
