"""The checks of chapter 02, embeddings."""

import torch

from transformer_lit.exercises import Mistake, exercise


def _expect_tensor(answer: object, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(answer, torch.Tensor):
        raise Mistake(f"{name} should be a tensor, got {type(answer).__name__}.")
    if tuple(answer.shape) != shape:
        raise Mistake(f"{name} should have shape {shape}, got {tuple(answer.shape)}.")


@exercise
def broken(answer):
    """Check how many of four positions of a one-hot product a broken row spoils: a number."""
    hints = {
        0: "0 times infinity is not 0 but NaN.",
        1: "that counts the position that looks the broken row up. It gets 1 times infinity, which "
        "is infinity. What do the others get?",
        2: "the token 1 stands twice. Count positions, not tokens.",
        4: "the position that looks the broken row up gets 1 times infinity plus finite numbers. "
        "Is that NaN?",
    }
    answer = float(answer)
    if answer != 3:
        raise Mistake(hints.get(answer, f"there are four positions, so not {answer:g}."))


@exercise
def mixture(answer):
    """Check a function from scores and a table to mixtures of the table's rows."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 7, generator=generator)
    table = torch.randn(7, 5, generator=generator)
    found = answer(scores.clone(), table.clone())
    _expect_tensor(found, (3, 5), "the result")
    hints = {
        "the scores are no weights yet: they can be negative, and don't sum to one.": scores,
        "that is a lookup of the largest score. A mixture takes a part of every row.": (
            scores == scores.amax(-1, keepdim=True)
        ).float(),
        "the weights sum to one over the positions. Each position needs weights that sum to one "
        "over the symbols.": scores.softmax(0),
        "each row is positive now, but its sum is not one. Divide by it.": scores.exp(),
        "that is the logarithm of the weights. Use softmax, not log_softmax.": (
            scores.log_softmax(-1)
        ),
    }
    if torch.allclose(found, scores.softmax(-1) @ table, atol=1e-5):
        return
    for hint, weights in hints.items():
        if torch.allclose(found, weights @ table, atol=1e-5):
            raise Mistake(hint)
    raise Mistake("these are not the mixtures: weights = softmax of the scores, times the table.")


@exercise
def lookup_gradient(answer):
    """Check a function from ids, arriving gradient and number of rows to the table's gradient."""
    tokens = torch.tensor([3, 1, 3, 5, 3, 1])
    upstream = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    found = answer(tokens.clone(), upstream.clone(), 7)
    if isinstance(found, torch.Tensor) and tuple(found.shape) == (2, 7):
        raise Mistake("the gradient has the shape of the table: rows for symbols, (7, 2) here.")
    if isinstance(found, torch.Tensor) and found.shape == upstream.shape:
        raise Mistake(
            "that has a row for each position. The gradient has the shape of the table, a row for "
            "each symbol: (7, 2) here."
        )
    _expect_tensor(found, (7, 2), "the gradient")
    expected = torch.zeros(7, 2).index_add(0, tokens, upstream)
    if torch.allclose(found, expected, atol=1e-5):
        return
    times = torch.bincount(tokens, minlength=7)
    once = times == 1
    if found[times == 0].any():
        raise Mistake("rows that were not looked up should get zeros.")
    if torch.allclose(found, expected / times.clamp(min=1)[:, None], atol=1e-5):
        raise Mistake("that is the mean over the times a symbol occurs. Gradients add up.")
    if torch.allclose(found, -expected, atol=1e-5):
        raise Mistake("the sign is turned. That is the step downhill, not the gradient.")
    if torch.allclose(found[once], expected[once], atol=1e-5):
        raise Mistake(
            "symbols that occur once are right. Where one occurs more often, only one of its "
            "gradients arrived: add all of them."
        )
    raise Mistake("row i should be the sum of the gradients at the positions where token i stands.")
