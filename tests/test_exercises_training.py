"""Each check of chapter 12: the stub is not yet, the solution passes, a mistake gets its hint."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.verdicts import refused, stub
from transformer_lit.exercises import training as check


def test_what_is_unwritten_is_not_yet():
    verdicts = (
        check.lowest(stub),
        check.gradient(stub),
        check.budgeted(stub),
        check.in_parts(stub),
    )
    for verdict in verdicts:
        assert not verdict and str(verdict).startswith("Not yet: ")


# ---- lowest


def entropy(share, size, least=None):
    other = share / size if least is None else least
    wanted = [1 - (size - 1) * other] + [other] * (size - 1)
    return -sum(p * math.log(p) for p in wanted if p)


def test_the_lowest_loss_passes():
    assert check.lowest(entropy)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda e, v: 0.0, "costs -log 0"),
        (lambda e, v: -math.log(1 - e + e / v), "the other classes have their share"),
        (lambda e, v: -math.log(1 - e), "keeps its part of the share"),
        (lambda e, v: entropy(e, v, least=e / (v - 1)), "the right one included"),
        (lambda e, v: math.log(v), "knowing nothing"),
        (lambda e, v: entropy(e, v) if e else math.nan, "0 times log 0"),
        (lambda e, v: 1.5, "for 0.1 and 31 classes it is 0.6"),
    ],
)
def test_a_wrong_lowest_loss_gets_its_hint(answer, hint):
    refused(check.lowest(answer), hint)


# ---- gradient


def wanted(logits, label, share):
    return (1 - share) * F.one_hot(torch.tensor(label), len(logits)) + share / len(logits)


def right(logits, label, share):
    return logits.softmax(-1) - wanted(logits, label, share)


def test_the_gradient_passes():
    assert check.gradient(right)


def test_the_gradient_is_that_of_autograd():
    logits = torch.randn(5, requires_grad=True)
    loss = F.cross_entropy(logits, torch.tensor(2), label_smoothing=0.1)
    [found] = torch.autograd.grad(loss, logits)
    assert torch.allclose(found, right(logits, 2, 0.1), atol=1e-6)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda z, y, e: -right(z, y, e), "the sign"),
        (lambda z, y, e: right(z, y, 0), "without smoothing"),
        (lambda z, y, e: right(z, y, 0) - e / len(z), "taken from the right class"),
        (lambda z, y, e: z - wanted(z, y, e), "softmax of the logits is missing"),
        (lambda z, y, e: -wanted(z, y, e) / z.softmax(-1), "go on to the logits"),
        (lambda z, y, e: z.softmax(-1), "yours sum to 1.000"),
        (lambda z, y, e: torch.zeros_like(z), "for label 2 and smoothing 0.0 it is"),
        (lambda z, y, e: right(z, y, e)[None], "of shape (5,)"),
        (lambda z, y, e: 0.5, "of shape (5,)"),
    ],
)
def test_a_wrong_gradient_gets_its_hint(answer, hint):
    refused(check.gradient(answer), hint)


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


def test_batches_within_a_budget_pass():
    assert check.budgeted(filled)
    assert check.budgeted(lambda lengths, most: [torch.tensor(b) for b in filled(lengths, most)])


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, most: [[i] for i in range(len(n))], "each sequence is alone"),
        (lambda n, most: [range(len(n))], "places, and 10 are allowed"),
        (by_real_places, "padding counts too"),
        (lambda n, most: filled(n, most)[:-1], "are in no batch"),
        (lambda n, most: [*filled(n, most), []], "is empty"),
        (lambda n, most: [*filled(n, most), [0]], "in two batches"),
        (lambda n, most: filled(n, most, lambda rows, key: rows), "sort by length first"),
    ],
)
def test_wrong_batches_get_their_hint(answer, hint):
    refused(check.budgeted(answer), hint)


# ---- in_parts


def shares(places):
    return [count / sum(places) for count in places]


def test_the_weights_of_parts_pass():
    assert check.in_parts(shares)
    assert check.in_parts(lambda places: torch.tensor(places) / sum(places))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda p: [1 / len(p)] * len(p), "the mean of means"),
        (lambda p: [len(p) * share for share in shares(p)], "Here they add up"),
        (lambda p: [1 / sum(p)] * len(p), "is a mean already"),
        (lambda p: p, "divide by all places"),
        (lambda p: [(1 / n) / sum(1 / m for m in p) for n in p], "more places, more weight"),
        (lambda p: [1.0], "2 weights, got 1"),
        (lambda p: [0.9] * len(p), "for [3, 1] places"),
    ],
)
def test_wrong_weights_get_their_hint(answer, hint):
    refused(check.in_parts(answer), hint)
