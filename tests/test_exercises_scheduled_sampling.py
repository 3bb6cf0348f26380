"""Each check of chapter 14: the stub is not yet, the solution passes, a mistake gets its hint."""

import math

import pytest
import torch

from tests.verdicts import refused, stub
from transformer_lit.exercises import scheduled_sampling as check
from transformer_lit.scheduled_sampling import likeliest


def test_what_is_unwritten_is_not_yet():
    for verdict in (
        check.accuracy(stub),
        check.half(stub),
        check.learned(stub),
        check.passes(stub),
    ):
        assert not verdict and str(verdict).startswith("Not yet: ")


# ---- accuracy


def limit(a, b):
    return b / (1 - a + b)


def chain(t, a, b):
    return limit(a, b) + (1 - limit(a, b)) * (a - b) ** t


def test_the_closed_form_passes():
    assert check.accuracy(chain)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda t, a, b: a**t, "without any error up to place t"),
        (lambda t, a, b: a, "with the truth as prefix"),
        (lambda t, a, b: chain(t + 1, a, b), "one place further"),
        (lambda t, a, b: chain(t - 1, a, b), "one place too early"),
        (lambda t, a, b: chain(t, b, a), "a belongs to a right symbol"),
        (lambda t, a, b: limit(a, b), "after many places"),
        (lambda t, a, b: 0.1, "it is 0.8440, got 0.1000"),
    ],
)
def test_a_wrong_accuracy_gets_its_hint(answer, hint):
    refused(check.accuracy(answer), hint)


# ---- half


def test_the_step_of_one_half_passes():
    assert check.half(lambda k: k * math.log(k))
    assert check.half(lambda k: round(k * math.log(k), 3))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda k: math.log(k), "multiply by it"),
        (lambda k: k, "k / (k + e)"),
        (lambda k: k * math.log10(k), "natural logarithm"),
        (lambda k: -k * math.log(k), "the sign"),
        (lambda k: math.exp(k), "turn exp(i / k) = k around"),
        (lambda k: 3, "it is 59.9, got 3.0"),
    ],
)
def test_a_wrong_step_of_one_half_gets_its_hint(answer, hint):
    refused(check.half(answer), hint)


# ---- learned


def test_the_probability_that_is_learned_passes():
    assert check.learned(lambda eps: (1 + eps) / 2)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda eps: 1, "that is the language"),
        (lambda eps: eps, "half of the time, too"),
        (lambda eps: 1 - eps / 2, "not of the own symbol"),
        (lambda eps: 0.5, "for eps = 0 only"),
        (lambda eps: 0.1, "it is 0.60, got 0.10"),
    ],
)
def test_a_wrong_probability_gets_its_hint(answer, hint):
    refused(check.learned(answer), hint)


# ---- passes


def repeated(model, shown, memory, memory_mask, keep, n_passes, again=True, shift=True):
    inputs = shown
    for _ in range(n_passes):
        own = likeliest(model.decode(inputs if again else shown, memory, memory_mask))
        if shift:
            own = torch.cat([shown[:, :1], own[:, :-1]], 1)
        inputs = torch.where(keep, shown, own)
    return inputs


def test_repeated_passes_pass():
    assert check.passes(repeated)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_wrong_passes_get_their_hint(answer, hint):
    refused(check.passes(answer), hint)
