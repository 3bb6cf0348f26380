"""The checks of chapter 03, one symbol at a time, then a window."""

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.window import WindowClassifier, windows


@exercise
def parameters(answer):
    """Check a function from width, vocab_size, d_model, d_hidden and n_classes to a count."""
    for width, vocab, d_model, d_hidden, classes in ((1, 7, 2, 3, 5), (5, 29, 11, 13, 17)):
        model = WindowClassifier(
            vocab_size=vocab, n_classes=classes, width=width, d_model=d_model, d_hidden=d_hidden
        )
        right = sum(parameter.numel() for parameter in model.parameters())
        found = answer(width, vocab, d_model, d_hidden, classes)
        if found == right:
            continue
        hints = {
            right - vocab * d_model: "the embedding is missing: vocab_size rows of d_model.",
            right - d_hidden: "the hidden layer has a bias too, d_hidden numbers.",
            right - classes: "the output layer has a bias too, n_classes numbers.",
            right - d_hidden - classes: "each of the two linear layers has a bias as well.",
            right + (width - 1) * vocab * d_model: "there is one embedding, shared by all places "
            "of the window, not one for each.",
            right + (width - 1) * d_hidden: "the hidden layer has one bias, not one per place.",
            right - (width - 1) * d_model * d_hidden: "the width is missing: the hidden layer "
            "reads width * d_model numbers.",
            right + (vocab**width - vocab) * d_model: "the window is not one symbol of a larger "
            "alphabet. Its places are looked up one by one.",
        }
        sizes = f"width {width}, vocab_size {vocab}, d_model {d_model}, d_hidden {d_hidden}, "
        raise Mistake(
            hints.get(found, f"with {sizes}n_classes {classes} it is {right}, got {found}.")
        )


@exercise
def left_windows(answer):
    """Check a function from ids and a width to the windows that end in each symbol."""
    tokens = torch.tensor([[2, 3, 5, 7, 11], [13, 17, 19, 23, 29]])
    for width in (3, 4, 1):
        expected = windows(tokens, 2 * width - 1)[..., :width]
        found = answer(tokens.clone(), width)
        if not isinstance(found, torch.Tensor):
            raise Mistake(f"the windows should be a tensor, got {type(found).__name__}.")
        if found.shape == expected.shape and torch.equal(found, expected):
            continue
        if found.shape == (2, 5 - width + 1, width):
            raise Mistake("the first symbols got no window. Pad, so that each position has one.")
        if tuple(found.shape) != tuple(expected.shape):
            raise Mistake(
                f"the windows should have shape {tuple(expected.shape)}, got {tuple(found.shape)}."
            )
        if torch.equal(found, expected.flip(-1)):
            raise Mistake("the symbols are right, their order is not: the symbol itself is last.")
        if torch.equal(found, windows(tokens, 2 * width - 1)[..., width - 1 :]):
            raise Mistake("these windows look to the right. Pad on the left only.")
        if width % 2 and torch.equal(found, windows(tokens, width)):
            raise Mistake("these windows still have the symbol in the middle; it should be last.")
        raise Mistake(
            f"for the ids {tokens[0].tolist()} and width {width} the window of the second symbol "
            f"should be {expected[0, 1].tolist()}, got {found[0, 1].tolist()}."
        )


# Two words, a position, and the width from which on the windows there differ.
_PAIRS = (
    ("mat", "mate", 1, 5),
    ("cat", "city", 0, 3),
    ("photograph", "photography", 2, 17),
    ("know", "now", 0, 1),
    ("gnat", "goat", 3, 5),
)


@exercise
def width_needed(answer):
    """Check a function from two words and a position to the smallest width that tells them apart.

    The windows are those of `transformer_lit.window.windows`: odd, padding beyond both ends.
    """
    for first, second, position, right in _PAIRS:
        found = answer(first, second, position)
        if found == right:
            continue
        asked = f"for {first!r}, {second!r} and position {position}"
        if found == right // 2:
            raise Mistake(f"{asked} you count the symbols on one side only: {found}, not {right}.")
        if found == right + 2:
            raise Mistake(
                f"{asked} got {found}, but width {right} is enough: the end of a word shows."
            )
        if first == "gnat":
            raise Mistake(f"{asked} the difference is on the left, two letters before: {right}.")
        raise Mistake(f"{asked} it is {right}, got {found}.")
