"""Each check of chapter 17: the stub is not yet, the solution passes, a mistake gets its hint."""

import math

import pytest
import torch
from einops import rearrange

from tests.verdicts import refused, stub
from transformer_lit.exercises import sequences as check


def test_what_is_unwritten_is_not_yet():
    for exercise in (check.n_symbols, check.closed, check.least_loss, check.to_picture):
        verdict = exercise(stub)
        assert not verdict and str(verdict).startswith("Not yet: ")


# ---- n_symbols


def test_the_count_of_symbols_passes():
    assert check.n_symbols(lambda phrases, words: 2 * phrases + words)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda p, w: p + w, "opened and closed"),
        (lambda p, w: 2 * (p + w), "a word has no brackets"),
        (lambda p, w: 2 * p, "each word has its tag"),
        (lambda p, w: 2 * p + w + 2, "begin and stop token"),
        (lambda p, w: 3 * p + w if p else w, "are one symbol"),
        (lambda p, w: 99, "with 4 phrases and 3 words it is 11: 99"),
    ],
)
def test_a_wrong_count_of_symbols_gets_its_hint(answer, hint):
    refused(check.n_symbols(answer), hint)


# ---- closed


def open_phrases(symbols):
    still_open = []
    for symbol in symbols:
        if symbol.startswith("("):
            still_open.append(symbol[1:])
        elif symbol.startswith(")"):
            still_open.pop()
    return still_open


def closed(symbols):
    return [*symbols, *(f"){label}" for label in reversed(open_phrases(symbols)))]


def test_closing_what_is_open_passes():
    assert check.closed(closed)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda s: s, "nothing was added"),
        (lambda s: [*s, *(f"){x}" for x in open_phrases(s))], "opened last is closed first"),
        (lambda s: [*s, *(f"){x[1:]}" for x in s[::-1] if x[0] == "(")], "closed already"),
        (lambda s: closed(s)[1:], "add to its end only"),
        (lambda s: [*s, *(["S"] if open_phrases(s) else [])], "cannot be read"),
        (lambda s: " ".join(closed(s)), "return a list of symbols, got str"),
    ],
)
def test_a_wrong_closing_gets_its_hint(answer, hint):
    refused(check.closed(answer), hint)


# ---- least_loss


def test_the_least_loss_passes():
    assert check.least_loss(lambda k: math.log(math.factorial(k)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda k: math.factorial(k), "not its logarithm"),
        (lambda k: math.log2(math.factorial(k)), "not that to base 2"),
        (lambda k: k * math.log(k), "written twice"),
        (lambda k: math.log(k), "first symbol alone"),
        (lambda k: math.log(math.factorial(k)) / k, "per symbol"),
        (lambda k: -math.log(math.factorial(k)), "minus the logarithm"),
        (lambda k: 0.5, "for 3 labels it is 1.792 nats, got 0.500"),
    ],
)
def test_a_wrong_least_loss_gets_its_hint(answer, hint):
    refused(check.least_loss(answer), hint)


# ---- to_picture


def to_picture(tokens, patch, levels, width, *, less=1, scaled=True, form="(y a) (x b)"):
    digits = (tokens[:, None] - less) // levels ** torch.arange(patch**2) % levels
    digits = digits / (levels - 1) if scaled else digits
    return rearrange(digits, f"(y x) (a b) -> {form}", x=width // patch, a=patch)


def turned(tokens, patch, levels, width):
    digits = (tokens[:, None] - 1) // levels ** torch.arange(patch**2).flip(0) % levels
    return rearrange(digits / (levels - 1), "(y x) (a b) -> (y a) (x b)", x=width // patch, a=patch)


def test_the_way_back_to_a_picture_passes():
    assert check.to_picture(to_picture)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda *given: to_picture(*given, scaled=False) + 0.0, "divide by levels - 1"),
        (lambda *given: to_picture(*given).T, "its shape should be (4, 6)"),
        (lambda *given: to_picture(*given).tolist(), "a tensor, got list"),
        (lambda *given: to_picture(*given) + 1, "One was added to each id"),
        (turned, "turned round"),
        (lambda t, p, n, w: to_picture(t, p, n, w, form="y x a b").reshape(-1, w), "lie flat"),
        (lambda *given: to_picture(*given, less=0), "with squares of 2 and 2 levels"),
    ],
)
def test_a_wrong_way_back_gets_its_hint(answer, hint):
    refused(check.to_picture(answer), hint)
