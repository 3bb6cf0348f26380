"""Checks for the exercises of chapter 04, self-attention."""

import torch
from torch import Tensor

from transformer_lit.attention import softmax_weights
from transformer_lit.exercises import Mistake, exercise


def _close(found, expected: Tensor) -> bool:
    found = torch.as_tensor(found, dtype=expected.dtype)
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-3)


def _tensor(found, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Mistake(f"a tensor of shape {shape} is expected, got {what}")
    return found


@exercise
def twice_the_query(weights: list[float] | Tensor) -> None:
    """What weights of 0.7, 0.2 and 0.1 become when the query is doubled."""
    before = torch.tensor([0.7, 0.2, 0.1])
    squares = before.square()
    if _close(weights, squares / squares.sum()):
        return
    if _close(weights, before):
        raise Mistake("the scores double too, and the softmax sees differences between scores")
    if _close(weights, 2 * before):
        raise Mistake("weights sum to one; it is the scores that double, inside the exponential")
    if _close(weights, squares):
        raise Mistake("exp(2 s) is the square of exp(s), but the squares must be divided again")
    raise Mistake("the scores were log 7, log 2 and log 1: double them, then take the softmax")


@exercise
def cold_softmax(answer) -> None:
    """``answer(scores, temperature)``: the softmax along the last axis, at a temperature."""
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, -1.0, 4.0]])
    for temperature in (0.25, 1.0, 4.0):
        found = _tensor(answer(scores.clone(), temperature), (2, 3))
        if torch.allclose(found, (scores / temperature).softmax(-1), atol=1e-5):
            continue
        if torch.allclose(found, (scores * temperature).softmax(-1), atol=1e-5):
            raise Mistake("a cold softmax is a sharp one: divide by the temperature")
        if torch.allclose(found, (scores / temperature).softmax(-2), atol=1e-5):
            raise Mistake("each query's row must sum to one, yours has columns that do")
        if torch.allclose(found, scores.softmax(-1) / temperature, atol=1e-5):
            raise Mistake("the temperature divides the scores, before the softmax, not the weights")
        if torch.allclose(found, scores.softmax(-1), atol=1e-5):
            raise Mistake("the temperature changes nothing in your answer")
        raise Mistake(f"at temperature {temperature}, scores {scores[0].tolist()} came out wrong")
    huge = torch.tensor([[1000.0, 0.0]])
    if not torch.allclose(answer(huge, 1.0), torch.tensor([[1.0, 0.0]])):
        raise Mistake("exp(1000) overflows: subtract the largest score first, or use .softmax")


@exercise
def masked_softmax(answer) -> None:
    """``answer(scores, mask)``: weights by hand, zero where the mask is False, without NaN."""
    scores = torch.tensor([[1.0, 2.0, 0.5, -1.0], [0.0, 3.0, 1.0, 1.0], [2.0, 0.0, -2.0, 1.0]])
    mask = torch.tensor([[True, True, False, True], [False, True, True, False], [True] * 4])
    found = _tensor(answer(scores.clone(), mask.clone()), (3, 4))
    if not torch.allclose(found, softmax_weights(scores, mask), atol=1e-5):
        if torch.allclose(found, softmax_weights(scores, ~mask), atol=1e-5, equal_nan=True) or (
            found.masked_fill(~mask, 0)[:2].abs().max() < 1e-5
        ):
            raise Mistake("the mask is the wrong way round: True means that a key may be seen")
        if found.masked_fill(mask, 0).abs().max() > 1e-6:
            raise Mistake("some weight is left where the mask is False")
        if (found.sum(-1) - 1).abs().max() > 1e-4:
            raise Mistake("rows must sum to one: mask the scores before the softmax, not after it")
        raise Mistake("the allowed keys of a row must get the softmax of their scores alone")
    loud = scores.clone()
    loud[0, 2] = 300  # hidden by the mask
    if not torch.allclose(answer(loud, mask.clone()), softmax_weights(loud, mask), atol=1e-5):
        raise Mistake("a hidden score of 300 changed the row: subtract the largest allowed score")
    if not torch.allclose(answer(scores + 300, mask.clone()), softmax_weights(scores, mask), 1e-4):
        raise Mistake(
            "scores of 300 overflow: subtract the largest of a row before you exponentiate"
        )
    nothing = answer(scores.clone(), mask & torch.tensor([[True], [False], [True]]))
    if not nothing.isfinite().all():
        raise Mistake("a query that may see nothing must get zeros, yours gets NaN")
    if nothing[1].abs().max() > 1e-6:
        raise Mistake("a query that may see nothing must get zeros, yours still has weights")
