"""The checks of chapter 01, symbols as vectors."""

import math

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.vocabulary import pad as reference

_LENGTHS = (3, 1, 5)


def _sequences() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 2, generator=generator) for length in _LENGTHS]


def _expect_tensor(answer: object, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(answer, torch.Tensor):
        raise Mistake(f"{name} should be a tensor, got {type(answer).__name__}.")
    if tuple(answer.shape) != shape:
        raise Mistake(f"{name} should have shape {shape}, got {tuple(answer.shape)}.")


@exercise
def distance(answer):
    """Check the distance between the mean one-hot vectors of *cat* and *cut*: a number."""
    answer = float(answer)
    hints = {
        math.sqrt(2): "that is the distance between the letters a and u. In the mean of three "
        "letters each counts a third.",
        2 / 9: "that is the squared distance. Take its root.",
        2 / 3: "that adds the two differences up. Square them first, then take the root.",
        math.sqrt(2) / 2: "each word has three letters, not two.",
        0.0: "the letters a and u are different, so the means differ at two places.",
    }
    if math.isclose(answer, math.sqrt(2) / 3, abs_tol=2e-3):
        return
    for wrong, hint in hints.items():
        if math.isclose(answer, wrong, abs_tol=2e-3):
            raise Mistake(hint)
    raise Mistake(
        f"{answer:g} is not it. Write down both means and see at which places they differ."
    )


@exercise
def real_max(answer):
    """Check a function from a padded batch and its lengths to the largest real values."""
    parts = [-1 - sequence.abs() for sequence in _sequences()]  # all negative: zero would win
    values, lengths = reference(parts, 100.0)
    expected = torch.stack([part.amax(0) for part in parts])
    found = answer(values.clone(), lengths.clone())
    if isinstance(found, tuple) and len(found) == 2:
        raise Mistake(
            "max(dim=...) returns values and their places. Return the values, or use amax."
        )
    if isinstance(found, torch.Tensor) and found.shape == (2,):
        raise Mistake("that is one result for the whole batch. Each sequence has its own.")
    if isinstance(found, torch.Tensor) and found.shape == (len(parts), 1, 2):
        raise Mistake("an axis of size one is left over. Take the maximum without keepdim.")
    _expect_tensor(found, (len(parts), 2), "the result")
    if torch.equal(found, expected):
        return
    if found.isinf().any():
        raise Mistake(
            "an infinity comes out: is the mask inverted, so that real positions are hidden?"
        )
    if torch.equal(found, values.amax(1)):
        raise Mistake("padded positions take part. The check fills them with 100.")
    if torch.equal(found, values.where(values != 100, 0).amax(1)):
        raise Mistake(
            "hidden positions became 0, which is larger than every negative number. Fill them "
            "with something smaller than all."
        )
    raise Mistake("these are not the largest values among the real positions.")


@exercise
def pad(answer):
    """Check a function from sequences of vectors to padded values and lengths."""
    parts = _sequences()
    expected, expected_lengths = reference(parts)
    found = answer([part.clone() for part in parts])
    if isinstance(found, torch.Tensor):
        raise Mistake("return two things, (values, lengths): nobody can tell padding without.")
    if len(found) != 2:
        raise Mistake(f"return two things, (values, lengths), got {len(found)}.")
    values, lengths = found
    if isinstance(values, torch.Tensor) and values.ndim == 3:
        if values.shape[1] == min(_LENGTHS):
            raise Mistake("the sequences are cut to the shortest. Make room for the longest.")
        if tuple(values.shape) == (max(_LENGTHS), len(parts), 2):
            raise Mistake("the batch comes first: (batch, seq, features), not (seq, batch, ...).")
    _expect_tensor(values, tuple(expected.shape), "values")
    if not torch.equal(values, expected):
        raise Mistake(_wrong_values(values, expected, parts))
    if not torch.equal(torch.as_tensor(lengths).long().flatten(), expected_lengths):
        raise Mistake(
            f"lengths should count the real positions, {list(_LENGTHS)}, "
            f"got {torch.as_tensor(lengths).tolist()}."
        )


def _wrong_values(values: torch.Tensor, expected: torch.Tensor, parts: list[torch.Tensor]) -> str:
    pairs = list(zip(values, parts, strict=True))
    if all(torch.equal(row[len(row) - len(part) :], part) for row, part in pairs):
        return "the padding stands at the front. Put it at the end."
    if all(torch.equal(row[: len(part)], part) for row, part in pairs):
        return (
            f"the sequences are in place, but padding is filled with {values[1, -1, 0]:g}, not 0."
        )
    return "the sequences are not where they should be: row i starts with sequence i."
