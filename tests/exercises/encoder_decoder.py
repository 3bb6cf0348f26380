"""Answers to the exercises of chapter 11."""

import torch

from transformer_lit.exercises import encoder_decoder as check

RIGHT, WRONG = {}, {}

# ---- keys_made

RIGHT[check.keys_made] = [lambda layers, n: (layers * n * (n + 1) // 2, layers * n)]

WRONG[check.keys_made] = [
    (lambda layers, n: (layers * n, layers * n * (n + 1) // 2), "first without the cache"),
    (lambda layers, n: (n * (n + 1) // 2, n), "that is one block"),
    (lambda layers, n: (layers * n * n, layers * n), "not on all n"),
    (lambda layers, n: (layers * n * (n - 1) // 2, layers * n), "needs a key too"),
    (lambda layers, n: (layers * n * (n + 1) // 2, layers), "each of the n steps"),
    (lambda layers, n: (layers * n, layers * n), "the keys of the past anew"),
    (lambda layers, n: layers * n, "return two numbers"),
    (lambda layers, n: (0, 0), "it is (84, 21), got (0, 0)"),
]


# ---- until_stop


def cut(tokens, stop=2):
    rows = tokens.tolist()
    return [row[: row.index(stop)] if stop in row else row for row in rows]


def with_stop(tokens):
    rows = tokens.tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


def at_the_last(tokens):
    rows = tokens.tolist()
    return [row[: len(row) - 1 - row[::-1].index(2)] if 2 in row else row for row in rows]


RIGHT[check.until_stop] = [cut, lambda tokens: [torch.tensor(row) for row in cut(tokens)]]

WRONG[check.until_stop] = [
    (with_stop, "the stop token is no part"),
    (lambda t: [row[: row.index(2)] if 2 in row else [] for row in t.tolist()], "keeps all"),
    (lambda t: [row[: (row.index(2) if 2 in row else -1)] for row in t.tolist()], "its last"),
    (lambda t: [[i for i in row if i != 2] for row in t.tolist()], "after the stop token"),
    (at_the_last, "not at the last"),
    (lambda t: t, "a list of lists"),
    (lambda t: cut(t)[:2], "should be 4 rows, got 2"),
    (lambda t: cut(t, stop=3), "[5, 3, 2, 7, 2] should become [5, 3], got [5]"),
]


# ---- may_cache

RIGHT[check.may_cache] = [lambda mask: not mask.triu(1).any()]

WRONG[check.may_cache] = [
    (lambda mask: True, "True for every mask"),
    (lambda mask: mask.triu(1).any(), "the opposite"),
    (lambda mask: torch.equal(mask, torch.ones_like(mask).tril()), "hide some of the past"),
    (lambda mask: not mask[0, 1:].any(), "one more True, in the future lets a place"),
    (lambda mask: not mask.triu().any(), "a place may attend to itself"),
    (
        lambda mask: mask.diagonal().all() and not mask.triu(1).any(),
        "not the place itself no",
    ),
]


# ---- cross_attention


def cross(x, memory, w_q, w_k, w_v, real, *, scale=None, dim=-1):
    scores = (x @ w_q) @ (memory @ w_k).transpose(-2, -1) / (scale or w_k.shape[-1] ** 0.5)
    weights = scores.masked_fill(~real[:, None], -torch.inf).softmax(dim)
    return weights.nan_to_num() @ (memory @ w_v)


def causal(x, memory, w_q, w_k, w_v, real):
    scores = (x @ w_q) @ (memory @ w_k).transpose(-2, -1) / w_k.shape[-1] ** 0.5
    mask = real[:, None] & torch.ones_like(scores, dtype=torch.bool).tril()
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ (memory @ w_v)


RIGHT[check.cross_attention] = [cross]

WRONG[check.cross_attention] = [
    (lambda x, m, q, k, v, real: cross(m, m, q, k, v, real), "Who asks, and who is asked"),
    (lambda x, m, q, k, v, real: cross(x, m, q, k, v, real | True), "padding of the memory"),
    (lambda *given: cross(*given, scale=1.0), "not divided by the root"),
    (lambda *given: cross(*given, scale=5**0.5), "not of d_model"),
    (lambda *given: cross(*given, dim=-2), "the softmax runs over the memory"),
    (causal, "no causal mask here"),
    (
        lambda x, m, q, k, v, real: cross(x, x, q, k, v, torch.ones(2, 3, dtype=torch.bool)),
        "that is self-attention",
    ),
    (lambda x, m, q, k, v, real: cross(x, m, q, k, v, ~real), "hides the inverse"),
    (lambda *given: cross(*given)[0], "the shape should be (2, 3, 11), got (3, 11)"),
    (lambda *given: [1], "return a tensor, got list"),
    (lambda *given: 2 * cross(*given), "the first output should begin"),
]
