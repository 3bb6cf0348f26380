"""The checks of chapter 06, where am I?"""

import math

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.positions import sinusoids


@exercise
def full_turns(answer):
    """Check how many pairs of width 64 turn all the way round within 22 places."""
    hints = {
        4: "the fastest pair has i = 0. Count it too.",
        10: "those are numbers. Each pair has two.",
        11: "a full turn is 2 * pi, not 1.",
        8: "that is half a turn. All the way round is 2 * pi.",
        9: "the exponent is 2i / d, not i / d.",
        27: "those are the pairs that do not get round.",
    }
    if int(answer) == 5:
        return
    if int(answer) in hints:
        raise Mistake(hints[int(answer)])
    raise Mistake(f"{answer} is not it. For which i is 22 / 10000 ** (2i / 64) at least 2 * pi?")


def _pairs(max_len: int, d_model: int, exponent) -> torch.Tensor:
    """Sines, then cosines, of the angles with this exponent of 10,000 for each pair."""
    place = torch.arange(max_len, dtype=torch.float64)[:, None]
    exponents = [exponent(i, d_model) for i in range(d_model // 2)]
    angles = place * 10_000.0 ** -torch.tensor(exponents, dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


@exercise
def halves(answer):
    """Check a function from max_len and d_model to sinusoids with all sines before all cosines."""
    for max_len, d_model in ((7, 10), (13, 6)):
        table = sinusoids(max_len, d_model)
        expected = torch.cat([table[:, 0::2], table[:, 1::2]], dim=-1)
        found = answer(max_len, d_model)
        if not isinstance(found, torch.Tensor):
            raise Mistake(f"the table should be a tensor, got {type(found).__name__}.")
        if found.shape != expected.shape:
            raise Mistake(
                f"the table should have shape {(max_len, d_model)}, got {tuple(found.shape)}."
            )
        found = found.float()
        sines, cosines = expected.chunk(2, dim=-1)
        mistakes = {
            "the sines and cosines still take turns.": table,
            "the halves are the wrong way around: sines first.": torch.cat([cosines, sines], -1),
            "the two lines are stacked, and then read across. Join along the columns.": torch.cat(
                [sines, cosines]
            ).reshape(max_len, d_model),
            "the slowest wave comes first in each half. Begin with i = 0.": torch.cat(
                [sines.flip(-1), cosines.flip(-1)], dim=-1
            ),
            "the exponent is 2i / d, where i counts the columns of one half.": _pairs(
                max_len, d_model, lambda i, d: i / d
            ),
            "the last exponent is 1 here. In the paper's formula it is (d - 2) / d.": _pairs(
                max_len, d_model, lambda i, d: 2 * i / (d - 2)
            ),
        }
        if torch.allclose(found, expected, atol=1e-4):
            continue
        for hint, wrong in mistakes.items():
            if torch.allclose(found, wrong, atol=1e-4):
                raise Mistake(hint)
        raise Mistake(
            f"with max_len {max_len} and d_model {d_model} column 1 of place 1 should be "
            f"{float(expected[1, 1]):.4f}, got {float(found[1, 1]):.4f}."
        )


@exercise
def product(answer):
    """Check a function from a distance and d_model to the dot product of two places."""
    for distance, d_model in ((3, 10), (0, 6), (-5, 10), (101, 64)):
        angles = [distance / 10_000 ** (2 * i / d_model) for i in range(d_model // 2)]
        right = sum(math.cos(angle) for angle in angles)
        found = float(answer(distance, d_model))
        if abs(found - right) < 1e-3:
            continue
        mistakes = {
            "twice too much: there is one cosine for each pair, and half as many pairs as "
            "columns.": 2 * right,
            "that is the cosine similarity. The dot product is larger, by d / 2.": 2
            * right
            / d_model,
            "sum the cosines of the angles. Their sines drop out.": sum(map(math.sin, angles)),
            "the exponent is 2i / d, where i counts the pairs.": sum(
                math.cos(distance / 10_000 ** (i / d_model)) for i in range(d_model // 2)
            ),
            "sum over the pairs: i goes up to d / 2.": sum(
                math.cos(distance / 10_000 ** (2 * i / d_model)) for i in range(d_model)
            ),
        }
        for hint, wrong in mistakes.items():
            if abs(found - wrong) < 1e-3:
                raise Mistake(hint)
        raise Mistake(
            f"for distance {distance} and d_model {d_model} it is {right:.3f}, got {found:.3f}."
        )


@exercise
def counted(answer):
    """Check a function from a mask (batch, seq) of real letters to the place of each in its word.

    Padding gets place 0.
    """
    real = torch.tensor(
        [[False, False, True, True, True], [True] * 5, [False, True, True, False, False]]
    )
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 1, 0, 0]]
    found = answer(real.clone())
    if not isinstance(found, torch.Tensor) or found.shape != real.shape:
        shape = tuple(getattr(found, "shape", ()))
        raise Mistake(f"the places should be a tensor of shape (3, 5), got shape {shape}.")
    found = found.tolist()
    if found == expected:
        return
    at_letters = [torch.tensor(found[row])[real[row]].tolist() for row in range(3)]
    if at_letters == [[2, 3, 4], [0, 1, 2, 3, 4], [1, 2]]:
        raise Mistake("these count the padding on the left too. Begin at the first letter.")
    if at_letters == [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2]]:
        raise Mistake("places count from 0, not from 1.")
    if at_letters == [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1]]:
        if any(place < 0 for row in found for place in row):
            raise Mistake("the letters are right. But padding has place -1: as an index, the last.")
        raise Mistake("the letters are right, but padding should have place 0.")
    raise Mistake(f"for the mask {real[0].tolist()} it is {expected[0]}, got {found[0]}.")
