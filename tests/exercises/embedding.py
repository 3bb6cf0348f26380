"""Answers to the exercises of chapter 02."""

import torch

from transformer_lit.exercises import embedding as check
from transformer_lit.vocabulary import one_hot

RIGHT, WRONG = {}, {}

# ---- broken

table = torch.ones(5, 2)
table[4] = torch.inf
spoiled = (one_hot(torch.tensor([0, 1, 4, 1]), 5) @ table).isnan().any(1)

RIGHT[check.broken] = [spoiled.sum(), 3, 3.0]

WRONG[check.broken] = [
    (0, "is not 0 but NaN"),
    (1, "which is infinity"),
    (2, "Count positions, not tokens"),
    (4, "Is that NaN?"),
    (7, "not 7"),
    ("three", "ValueError"),
]


# ---- mixture


def solution_mixture(scores, table):
    return scores.softmax(dim=-1) @ table


RIGHT[check.mixture] = [
    solution_mixture,
    lambda s, t: (s.exp() / s.exp().sum(-1, keepdim=True)) @ t,
]

WRONG[check.mixture] = [
    (lambda s, t: s @ t, "no weights yet"),
    (lambda s, t: t[s.argmax(-1)], "that is a lookup"),
    (lambda s, t: s.softmax(0) @ t, "over the positions"),
    (lambda s, t: s.exp() @ t, "its sum is not one"),
    (lambda s, t: s.log_softmax(-1) @ t, "not log_softmax"),
    (lambda s, t: (-s).softmax(-1) @ t, "these are not the mixtures"),
    (lambda s, t: s.softmax(-1), "should have shape (3, 5), got (3, 7)"),
    (lambda s, t: 0, "should be a tensor, got int"),
    (lambda s, t: t @ s, "RuntimeError"),
]


# ---- lookup_gradient


def solution_gradient(tokens, upstream, vocab_size):
    grad = torch.zeros(vocab_size, upstream.shape[1])
    for token, pull in zip(tokens, upstream, strict=True):
        grad[token] += pull
    return grad


def read_once_written_once(tokens, upstream, vocab_size):
    grad = torch.zeros(vocab_size, upstream.shape[1])
    grad[tokens] += upstream
    return grad


def spread(tokens, upstream, vocab_size):
    return solution_gradient(tokens, upstream, vocab_size) + 1


def mean(tokens, upstream, vocab_size):
    times = torch.bincount(tokens, minlength=vocab_size).clamp(min=1)
    return solution_gradient(tokens, upstream, vocab_size) / times[:, None]


RIGHT[check.lookup_gradient] = [solution_gradient, lambda ids, g, v: one_hot(ids, v).T @ g]

WRONG[check.lookup_gradient] = [
    (read_once_written_once, "only one of its gradients arrived"),
    (spread, "should get zeros"),
    (mean, "Gradients add up"),
    (lambda ids, g, v: -solution_gradient(ids, g, v), "The sign is turned".lower()),
    (lambda ids, g, v: solution_gradient(ids, g, v).T, "rows for symbols"),
    (lambda ids, g, v: g, "a row for each position"),
    (lambda ids, g, v: 2 * solution_gradient(ids, g, v), "row i should be the sum"),
    (lambda ids, g, v: g.sum(0), "should have shape (7, 2), got (2,)"),
    (lambda ids, g, v: [0.0], "should be a tensor, got list"),
]
