"""Answers to the exercises of chapter 20."""

import math

import torch

from transformer_lit.exercises import sparse_attention as check

RIGHT, WRONG = {}, {}

# ---- scores_made

RIGHT[check.scores_made] = [lambda n, w, b: math.ceil(n / b) * b * (b + 2 * w)]

WRONG[check.scores_made] = [
    (lambda n, w, b: math.ceil(n / b) * b * (b + w), "both sides"),
    (lambda n, w, b: n * (b + 2 * w), "filler asks too"),
    (lambda n, w, b: n // b * b * (b + 2 * w), "round up"),
    (lambda n, w, b: n * (2 * w + 1), "The stretches compute more"),
    (lambda n, w, b: math.ceil(n / b) * (b + 2 * w), "those are keys"),
    (lambda n, w, b: n * n, "the full table"),
    (lambda n, w, b: 3, "it is 3584, got 3"),
]


# ---- causal_edges


def window(seq, before, after=0):
    steps = torch.arange(seq) - torch.arange(seq)[:, None]
    return ((steps >= -before) & (steps <= after)).nonzero().T


RIGHT[check.causal_edges] = [window, lambda n, w: window(n, w).flip(1)]

WRONG[check.causal_edges] = [
    (lambda n, w: window(n, w).flip(0), "these look ahead"),
    (lambda n, w: window(n, w, w), "both sides"),
    (lambda n, w: window(n, w, -1), "itself too"),
    (lambda n, w: window(n, w + 1), "one step too many"),
    (lambda n, w: window(n, n), "without a window"),
    (lambda n, w: window(n, w).repeat(1, 2), "listed twice"),
    (lambda n, w: window(n, w).T, "shape (2, edges)"),
    (lambda n, w: window(n, w).float(), "integers, got torch.float32"),
    (lambda n, w: torch.zeros(2, 1, dtype=torch.long), "look at [4, 5, 6]"),
]


# ---- favourites

RIGHT[check.favourites] = [
    lambda of_query, of_key: of_key.argmax().expand(len(of_query)),
    lambda a, b: (a[:, None] + b).argmax(-1),
]

WRONG[check.favourites] = [
    (lambda a, b: a.argmax().expand(len(a)), "the same for all its edges"),
    (lambda a, b: (a[:, None] + b).argmin(-1), "looks at least"),
    (lambda a, b: b.argsort(descending=True), "a ranking"),
    (lambda a, b: torch.arange(len(a)), "prefer others to itself"),
    (lambda a, b: b.argmax(), "one node for each node"),
    (lambda a, b: b, "integers, got torch.float32"),
    (lambda a, b: torch.arange(len(a)).flip(0), "here each node looks most at"),
]


# ---- neighbours_mean


def add_up(x, edges):
    return torch.zeros_like(x).index_add(0, edges[0], x[edges[1]])


def mean(x, edges, least=1):
    counts = torch.bincount(edges[0], minlength=len(x))
    return add_up(x, edges) / counts.clamp(min=least)[:, None]


def overwritten(x, edges):
    new = torch.zeros_like(x)
    new[edges[0]] = x[edges[1]]
    return new


def in_place(x, edges):
    new = mean(x, edges)
    x.zero_()
    return new


def with_itself(x, edges):
    counts = torch.bincount(edges[0], minlength=len(x)) + 1
    return (add_up(x, edges) + x) / counts[:, None]


RIGHT[check.neighbours_mean] = [mean]

WRONG[check.neighbours_mean] = [
    (lambda x, edges: mean(x, edges, least=0), "0 / 0 is NaN"),
    (add_up, "that is the sum"),
    (lambda x, edges: mean(x, edges.flip(0)), "those who look"),
    (with_itself, "only along an edge to itself"),
    (overwritten, "keeps one value of many"),
    (lambda x, edges: add_up(x, edges) / len(x), "not by the number of nodes"),
    (in_place, "have changed"),
    (lambda x, edges: mean(x, edges)[0], "of shape (7, 5)"),
    (lambda x, edges: x, "node 0 looks at"),
]
