"""The checks of chapter 08, what may not be seen."""

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.masking import causal_mask, local_mask


@exercise
def pairs(answer):
    """Check a function from seq and window to the pairs that a causal window lets attend."""
    for seq, window in ((7, 2), (5, 0), (3, 11), (11, 3)):
        right = int((causal_mask(seq) & local_mask(seq, window)).sum())
        found = int(answer(seq, window))
        if found == right:
            continue
        hints = {
            int(local_mask(seq, window).sum()): "that is the window on both sides. The causal mask "
            "takes away what comes after.",
            right - seq: "each position may attend to itself too.",
            seq * (window + 1): "the first positions have fewer than window others before them.",
            seq * (seq + 1) // 2: "that is the causal mask alone, without the window.",
            seq * window: "each position may attend to itself too, and the first ones have fewer "
            "than window others before them.",
        }
        raise Mistake(
            hints.get(found, f"for seq {seq} and window {window} it is {right}, got {found}.")
        )


@exercise
def prefix_mask(answer):
    """Check a function from prefix and seq to the mask whose first positions see one another."""
    for prefix, seq in ((3, 7), (1, 5), (5, 5)):
        before = torch.arange(seq) < prefix
        causal = causal_mask(seq)
        right = causal | before
        found = answer(prefix, seq)
        if not isinstance(found, torch.Tensor):
            raise Mistake(f"the mask should be a tensor, got {type(found).__name__}.")
        if found.dtype != torch.bool:
            raise Mistake(f"the mask should be of torch.bool, got {found.dtype}.")
        if found.shape != right.shape:
            raise Mistake(f"its shape should be {tuple(right.shape)}, got {tuple(found.shape)}.")
        if torch.equal(found, right):
            continue
        mistakes = {
            "True = may attend: this is the inverse.": ~right,
            "the prefix does not see itself whole yet: position 0 may attend to its last.": causal,
            "the prefix sees what comes behind it too. The columns of the prefix are open, not "
            "its rows.": causal | before[:, None],
            "it takes | here, not &: a pair is open if either rule opens it.": causal & before,
            "position prefix belongs to the rest, not to the prefix.": causal
            | (torch.arange(seq) <= prefix),
            "behind the prefix the mask is causal: those positions see one another "
            "backwards.": before.expand_as(right),
        }
        for hint, wrong in mistakes.items():
            if torch.equal(found, wrong):
                raise Mistake(hint)
        raise Mistake(
            f"for prefix {prefix} and seq {seq} row 0 should be {right[0, 0, 0].int().tolist()} "
            f"and the last row {right[0, 0, -1].int().tolist()}."
        )


@exercise
def reach(answer):
    """Check a function from a mask (seq, seq) and a number of layers to what has reached whom."""
    seq = 7
    back = torch.ones(seq, seq, dtype=torch.bool).tril(-1) & local_mask(seq, 1)[0, 0]
    window = (causal_mask(seq) & local_mask(seq, 2))[0, 0]
    for mask, n_layers in ((window, 2), (back, 2), (window, 1), (back, 3)):
        right = _reach(mask, n_layers)
        found = answer(mask.clone(), n_layers)
        if not isinstance(found, torch.Tensor) or found.shape != right.shape:
            raise Mistake(f"the answer should be a tensor of shape {tuple(right.shape)}.")
        if found.dtype != torch.bool:
            raise Mistake(f"the answer should be booleans, got {found.dtype}.")
        if torch.equal(found, right):
            continue
        paths = torch.linalg.matrix_power(mask.float(), n_layers) > 0
        mistakes = {
            f"that is what one layer does, and there are {n_layers}.": (_reach(mask, 1), mask),
            "a vector is added to what its layer gives, so each position always reaches itself.": (
                paths,
            ),
            "that is one layer too many.": (_reach(mask, n_layers + 1),),
            "rows are those who look, columns those who are looked at: this is transposed.": (
                right.T,
                paths.T,
            ),
        }
        for hint, wrong in mistakes.items():
            if any(torch.equal(found, one) for one in wrong):
                raise Mistake(hint)
        raise Mistake(
            f"after {n_layers} layers the last position should have been reached from "
            f"{right[-1].nonzero().flatten().tolist()}."
        )


def _reach(mask: torch.Tensor, n_layers: int) -> torch.Tensor:
    one = (mask | torch.eye(len(mask), dtype=torch.bool)).float()
    return torch.linalg.matrix_power(one, n_layers) > 0


def _honest(x):
    return x.cumsum(1)


def _one_place(place):
    """A model in which one place sees the next, and all else is honest."""

    def model(x):
        y = x.cumsum(1)
        y[:, place] += x[:, place + 1]
        return y

    return model


_LEAKY = {
    "everybody sees everything": lambda x: x.cumsum(1) + x.sum(1, keepdim=True),
    "each position sees one place ahead": lambda x: x + x.roll(-1, 1) * (x.shape[1] > 1),
    "only position 0 sees position 1": _one_place(0),
    "only position 3 sees position 4": _one_place(3),
    "only the position before the last sees the last": _one_place(5),
    "the leak is faint": lambda x: x.cumsum(1) + 1e-4 * x.sum(1, keepdim=True),
}


@exercise
def leaks(answer):
    """Check a function that tells whether a model of vectors (batch, seq, width) sees ahead."""
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    given = x.clone()
    if answer(_honest, given):
        if all(answer(model, x.clone()) for model in _LEAKY.values()):
            raise Mistake(
                "a model that adds up the past was called leaky. Compare only the places before "
                "the first one that you changed."
            )
        raise Mistake("the answer is True for a model that leaks, False for one that does not.")
    if not torch.equal(given, x):
        raise Mistake("the vectors you were given have changed. Work on a copy: x.clone().")
    missed = [name for name, model in _LEAKY.items() if not answer(model, x.clone())]
    if len(missed) == len(_LEAKY):
        raise Mistake("no leak was found, not even where everybody sees everything.")
    if missed == ["the leak is faint"]:
        raise Mistake("a faint leak was missed: compare to the bit, with torch.equal.")
    if missed:
        raise Mistake(f"missed: {missed[0]}. Change the future from every place on, in turn.")
