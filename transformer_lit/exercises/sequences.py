"""The checks of chapter 17, anything as a sequence."""

import math

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.sequences import picture_tokens, read_tree, write_tree

_NOUN_PHRASE = ("NP", ("DET", "a"), ("NOUN", "saw"))
_TREES = (
    ("S", ("NP", ("PRON", "i")), ("VP", ("VERB", "saw"), _NOUN_PHRASE)),
    ("S", ("NP", ("PRON", "we")), ("VP", ("VERB", "fish"))),
    ("NOUN", "fish"),
)


@exercise
def n_symbols(answer):
    """Check a function from numbers of phrases and of words to the length of a written tree."""
    for phrases, words in ((4, 3), (3, 2), (0, 1), (7, 9)):
        right = 2 * phrases + words
        found = answer(phrases, words)
        if found == right:
            continue
        hints = {
            phrases + words: "a phrase is opened and closed.",
            2 * (phrases + words): "a word has no brackets: it is written as its tag.",
            2 * phrases: "each word has its tag.",
            right + 2: "begin and stop token are not counted here.",
            3 * phrases + words: "a bracket and its label are one symbol.",
        }
        raise Mistake(
            hints.get(found, f"with {phrases} phrases and {words} words it is {right}: {found}.")
        )


@exercise
def closed(answer):
    """Check a function that closes, at the end, what a written tree has left open."""
    for tree in _TREES:
        whole = write_tree(tree)
        words = _words(tree)
        end = len(whole)
        while end and whole[end - 1].startswith(")"):
            end -= 1
        for cut in range(end, len(whole) + 1):
            found = answer(whole[:cut])
            if not isinstance(found, list):
                raise Mistake(f"return a list of symbols, got {type(found).__name__}.")
            if found == whole:
                continue
            if found[:cut] != whole[:cut]:
                raise Mistake("what was written should stay as it is: add to its end only.")
            missing = whole[cut:]
            if found == whole[:cut]:
                raise Mistake(f"nothing was added to {' '.join(whole[:cut])}.")
            if found[cut:] == missing[::-1]:
                raise Mistake("what was opened last is closed first.")
            if len(found) > len(whole):
                raise Mistake("too much is closed: what is closed already stays closed.")
            try:
                read_tree(found, words)
            except ValueError as error:
                raise Mistake(f"{' '.join(found)} cannot be read: {error}.") from error


def _words(tree):
    parts = tree[1:]
    return list(parts) if isinstance(parts[0], str) else [w for part in parts for w in _words(part)]


@exercise
def least_loss(answer):
    """Check a function from k to the least loss, in nats, of k labels in an even random order."""
    for k in (3, 5, 2, 1):
        right = math.lgamma(k + 1)
        found = answer(k)
        if abs(found - right) < 1e-6 * max(1, right):
            continue
        mistakes = {
            "that is the number of orders, not its logarithm.": math.factorial(k),
            "in nats: the natural logarithm, not that to base 2.": right / math.log(2),
            "no label is written twice: the second choice is among one fewer.": k * math.log(k),
            "that is the first symbol alone.": math.log(k),
            "that is the loss per symbol; the sum over all of them is asked for.": right / k,
            "a loss is minus the logarithm of a probability.": -right,
        }
        for hint, wrong in mistakes.items():
            if abs(found - wrong) < 1e-6:
                raise Mistake(hint)
        raise Mistake(f"for {k} labels it is {right:.3f} nats, got {found:.3f}.")


@exercise
def to_picture(answer):
    """Check the inverse of picture_tokens: from one row of ids to grey values."""
    draws = torch.Generator().manual_seed(0)
    for patch, levels, height, width in ((2, 2, 4, 6), (2, 3, 6, 4), (1, 5, 2, 3), (3, 2, 3, 9)):
        grey = torch.randint(levels, (height, width), generator=draws) / (levels - 1)
        tokens = picture_tokens(grey[None], patch=patch, levels=levels)[0]
        found = answer(tokens, patch, levels, width)
        if not isinstance(found, torch.Tensor):
            raise Mistake(f"the picture should be a tensor, got {type(found).__name__}.")
        if found.shape != grey.shape:
            raise Mistake(f"its shape should be {tuple(grey.shape)}, got {tuple(found.shape)}.")
        found = found.float()
        if torch.allclose(found, grey, atol=1e-5):
            continue
        if torch.allclose(found / (levels - 1), grey, atol=1e-5):
            raise Mistake("grey values lie in 0 .. 1: divide by levels - 1.")
        if found.min() < 0 or found.max() > 1 + 1e-5:
            raise Mistake(
                f"grey values should lie in 0 .. 1, got {found.min():.2f} to {found.max():.2f}. "
                "One was added to each id: 0 is padding."
            )
        squares = grey.reshape(height // patch, patch, width // patch, patch)
        backwards = squares.flip(1, 3).reshape(height, width)
        if torch.allclose(found, backwards, atol=1e-5):
            raise Mistake("each square is turned round: the first pixel is the smallest digit.")
        in_rows = squares.permute(0, 2, 1, 3).reshape(height, width)
        if torch.allclose(found, in_rows, atol=1e-5):
            raise Mistake("the squares lie flat: their rows belong below one another.")
        raise Mistake(
            f"with squares of {patch} and {levels} levels the first row should be "
            f"{[round(v, 2) for v in grey[0].tolist()]}."
        )
