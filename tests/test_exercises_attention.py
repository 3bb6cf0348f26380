import pytest
import torch

from transformer_lit.exercises import attention


def unwritten(*args):
    return ...


# ---- twice_the_query


def test_twice_the_query_not_yet():
    assert attention.twice_the_query(...).message.startswith("Not yet")


@pytest.mark.parametrize("answer", [[49 / 54, 4 / 54, 1 / 54], torch.tensor([0.907, 0.074, 0.019])])
def test_twice_the_query_solved(answer):
    assert attention.twice_the_query(answer)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ([0.7, 0.2, 0.1], "the scores double too"),
        ([1.4, 0.4, 0.2], "weights sum to one"),
        ([0.49, 0.04, 0.01], "must be divided again"),
        ([0.6, 0.3, 0.1], "double them, then take the softmax"),
        ([0.9, 0.1], "double them, then take the softmax"),
    ],
)
def test_twice_the_query_hints(answer, hint):
    verdict = attention.twice_the_query(answer)
    assert not verdict and hint in verdict.message


# ---- cold_softmax


def test_cold_softmax_not_yet():
    assert attention.cold_softmax(unwritten).message.startswith("Not yet")


def test_cold_softmax_solved():
    assert attention.cold_softmax(lambda scores, t: (scores / t).softmax(-1))


def overflowing(scores, t):
    exps = (scores / t).exp()
    return exps / exps.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda s, t: (s * t).softmax(-1), "divide by the temperature"),
        (lambda s, t: (s / t).softmax(-2), "each query's row must sum to one"),
        (lambda s, t: s.softmax(-1) / t, "not the weights"),
        (lambda s, t: s.softmax(-1), "changes nothing"),
        (lambda s, t: (s / t**2).softmax(-1), "came out wrong"),
        (lambda s, t: (s / t).softmax(-1)[0], "a tensor of shape (2, 3) is expected, got (3,)"),
        (lambda s, t: [0.5], "a tensor of shape (2, 3) is expected, got list"),
        (overflowing, "subtract the largest score first"),
        (lambda s, t: s.softmaxed(), "raised AttributeError"),
    ],
)
def test_cold_softmax_hints(answer, hint):
    verdict = attention.cold_softmax(answer)
    assert not verdict and hint in verdict.message


# ---- masked_softmax


def solution(scores, mask):
    allowed = scores.masked_fill(~mask, -1e30)  # finite, so that empty rows stay finite
    exps = (scores - allowed.amax(-1, keepdim=True)).masked_fill(~mask, -torch.inf).exp()
    total = exps.sum(-1, keepdim=True)
    return exps / total.where(total > 0, 1)


def normalised(exps):
    total = exps.sum(-1, keepdim=True)
    return exps / total.where(total > 0, 1)


def test_masked_softmax_not_yet():
    assert attention.masked_softmax(unwritten).message.startswith("Not yet")


def test_masked_softmax_solved():
    assert attention.masked_softmax(solution)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_masked_softmax_hints(answer, hint):
    verdict = attention.masked_softmax(answer)
    assert not verdict and hint in verdict.message
