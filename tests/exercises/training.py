"""Answers to the exercises of chapter 12."""

import math

import torch
import torch.nn.functional as F

from transformer_lit.exercises import training as check

RIGHT, WRONG = {}, {}

# ---- lowest


def entropy(share, size, least=None):
    other = share / size if least is None else least
    wanted = [1 - (size - 1) * other] + [other] * (size - 1)
    return -sum(p * math.log(p) for p in wanted if p)


RIGHT[check.lowest] = [entropy]

WRONG[check.lowest] = [
    (lambda e, v: 0.0, "costs -log 0"),
    (lambda e, v: -math.log(1 - e + e / v), "the other classes have their share"),
    (lambda e, v: -math.log(1 - e), "keeps its part of the share"),
    (lambda e, v: entropy(e, v, least=e / (v - 1)), "the right one included"),
    (lambda e, v: math.log(v), "knowing nothing"),
    (lambda e, v: entropy(e, v) if e else math.nan, "0 times log 0"),
    (lambda e, v: 1.5, "for 0.1 and 31 classes it is 0.6"),
]


# ---- gradient


def wanted(logits, label, share):
    return (1 - share) * F.one_hot(torch.tensor(label), len(logits)) + share / len(logits)


def right(logits, label, share):
    return logits.softmax(-1) - wanted(logits, label, share)


def by_autograd(logits, label, share):
    logits = logits.clone().requires_grad_()
    loss = F.cross_entropy(logits, torch.tensor(label), label_smoothing=share)
    return torch.autograd.grad(loss, logits)[0]


RIGHT[check.gradient] = [right, by_autograd]

WRONG[check.gradient] = [
    (lambda z, y, e: -right(z, y, e), "the sign"),
    (lambda z, y, e: right(z, y, 0), "without smoothing"),
    (lambda z, y, e: right(z, y, 0) - e / len(z), "taken from the right class"),
    (lambda z, y, e: z - wanted(z, y, e), "softmax of the logits is missing"),
    (lambda z, y, e: -wanted(z, y, e) / z.softmax(-1), "go on to the logits"),
    (lambda z, y, e: z.softmax(-1), "yours sum to 1.000"),
    (lambda z, y, e: torch.zeros_like(z), "for label 2 and smoothing 0.0 it is"),
    (lambda z, y, e: right(z, y, e)[None], "of shape (5,)"),
    (lambda z, y, e: 0.5, "of shape (5,)"),
]


# ---- budgeted


def filled(lengths, most, order=sorted):
    batches = [[]]
    for i in order(range(len(lengths)), key=lambda i: lengths[i]):
        longest = max(lengths[j] for j in [*batches[-1], i])
        if (len(batches[-1]) + 1) * longest > most:
            batches.append([])
        batches[-1].append(i)
    return batches


def by_real_places(lengths, most):
    batches = [[]]
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if sum(lengths[j] for j in [*batches[-1], i]) > most:
            batches.append([])
        batches[-1].append(i)
    return batches


RIGHT[check.budgeted] = [
    filled,
    lambda lengths, most: [torch.tensor(b) for b in filled(lengths, most)],
]

WRONG[check.budgeted] = [
    (lambda n, most: [[i] for i in range(len(n))], "each sequence is alone"),
    (lambda n, most: [range(len(n))], "places, and 10 are allowed"),
    (by_real_places, "padding counts too"),
    (lambda n, most: filled(n, most)[:-1], "are in no batch"),
    (lambda n, most: [*filled(n, most), []], "is empty"),
    (lambda n, most: [*filled(n, most), [0]], "in two batches"),
    (lambda n, most: filled(n, most, lambda rows, key: rows), "sort by length first"),
]


# ---- in_parts


def shares(places):
    return [count / sum(places) for count in places]


RIGHT[check.in_parts] = [shares, lambda places: torch.tensor(places) / sum(places)]

WRONG[check.in_parts] = [
    (lambda p: [1 / len(p)] * len(p), "the mean of means"),
    (lambda p: [len(p) * share for share in shares(p)], "Here they add up"),
    (lambda p: [1 / sum(p)] * len(p), "is a mean already"),
    (lambda p: p, "divide by all places"),
    (lambda p: [(1 / n) / sum(1 / m for m in p) for n in p], "more places, more weight"),
    (lambda p: [1.0], "2 weights, got 1"),
    (lambda p: [0.9] * len(p), "for [3, 1] places"),
]
