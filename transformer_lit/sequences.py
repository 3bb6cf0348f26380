"""Trees, label sets, boxes and pictures as sequences that an encoder-decoder can read and write.

Chapter: https://transformer-lit.github.io/transformer_lit/book/17-anything-as-a-sequence.html
Paper: Vinyals et al. 2015, section 2.2, https://arxiv.org/abs/1412.7449 (trees);
    Chen et al. 2022, section 2.1, https://arxiv.org/abs/2109.10852 (boxes).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

Tree = tuple  # (label, tree, tree, ...) for a phrase, (tag, word) for a word


def write_tree(tree: Tree) -> list[str]:
    """Write a tree from left to right: ``(NP`` opens a phrase, ``)NP`` closes it, words are tags.

    Raises:
        ValueError: if there is no tree, or a phrase or a tag has nothing below it.
    """
    if not tree:
        raise ValueError(f"a tree must have a label and parts, got {tree!r}")
    label, *parts = tree
    if not parts:
        raise ValueError(f"there is nothing below {label!r}")
    if isinstance(parts[0], str):
        return [label]
    return [f"({label}", *(symbol for part in parts for symbol in write_tree(part)), f"){label}"]


def read_tree(symbols: Sequence[str], words: Sequence[str]) -> Tree:
    """Read what ``write_tree`` has written, and put the words back in at the tags.

    Raises:
        ValueError: if a bracket has no partner or one of another label, a phrase is empty, there
            is not one tree above all, or not one tag for each word.
    """
    phrases: list[list] = [[None]]  # those that are open; the first one holds the whole tree
    left = list(reversed(words))
    for place, symbol in enumerate(symbols):
        if symbol.startswith("("):
            phrases.append([symbol[1:]])
        elif not symbol.startswith(")"):
            if not left:
                raise ValueError(f"{symbol!r} at place {place}: there are only {len(words)} words")
            phrases[-1].append((symbol, left.pop()))
        elif symbol[1:] != phrases[-1][0]:
            raise ValueError(f"{symbol!r} at place {place} closes {phrases[-1][0] or 'nothing'}")
        elif len(phrases[-1]) == 1:
            raise ValueError(f"{symbol!r} at place {place} closes an empty phrase")
        else:
            phrase = tuple(phrases.pop())
            phrases[-1].append(phrase)
    if len(phrases) > 1:
        raise ValueError(f"{phrases[-1][0]!r} is never closed")
    if len(phrases[0]) != 2:
        raise ValueError(f"there must be one tree above all, got {len(phrases[0]) - 1}")
    if left:
        raise ValueError(f"{len(words)} words, but tags for {len(words) - len(left)} of them")
    return phrases[0][1]


def write_labels(labels: Iterable[str], order: Sequence[str]) -> list[str]:
    """Write a set of labels, each once, in the order in which they stand in ``order``.

    Raises:
        ValueError: if a label is not in ``order``.
    """
    _check_labels(labels := set(labels), order)
    return [label for label in dict.fromkeys(order) if label in labels]


def read_labels(symbols: Sequence[str], order: Sequence[str]) -> set[str]:
    """Read a set of labels: any order will do, and a label that is written twice counts once.

    Raises:
        ValueError: if a symbol is not in ``order``.
    """
    _check_labels(symbols, order)
    return set(symbols)


class Box(NamedTuple):
    """A rectangle with a label; ``bottom`` and ``right`` lie just outside, as in a slice."""

    top: float
    left: float
    bottom: float
    right: float
    label: str


def write_boxes(boxes: Iterable[Box], *, size: float | int, n_bins: int) -> list[str]:
    """Write each box as five symbols: top, left, bottom, right, as the nearest bin, and the label.

    Bin 0 is one edge of a canvas of ``size`` by ``size``, bin ``n_bins - 1`` the other.

    Raises:
        ValueError: if a box is empty or not wholly on the canvas, or size or ``n_bins``
            makes no canvas.
    """
    _check_canvas(size, n_bins)
    symbols: list[str] = []
    for box in boxes:
        if not (0 <= box.top < box.bottom <= size and 0 <= box.left < box.right <= size):
            raise ValueError(f"{box} is empty or not on a canvas of {size} by {size}")
        bins = [round(edge / size * (n_bins - 1)) for edge in box[:4]]
        symbols += [*(f"@{place}" for place in bins), box.label]
    return symbols


def read_boxes(symbols: Sequence[str], *, size: float | int, n_bins: int) -> list[Box]:
    """Read what ``write_boxes`` has written, up to the width of a bin.

    Raises:
        ValueError: if the symbols are not four bins and a label, again and again, a bin lies
            beyond the last, a box is empty, or size or ``n_bins``
            makes no canvas.
    """
    _check_canvas(size, n_bins)
    if len(symbols) % 5:
        raise ValueError(f"a box has 5 symbols, got {len(symbols)} in all")
    known = {f"@{place}": place * size / (n_bins - 1) for place in range(n_bins)}
    boxes = []
    for start in range(0, len(symbols), 5):
        *edges, label = symbols[start : start + 5]
        if not all(edge in known for edge in edges) or label.startswith("@"):
            text = " ".join((*edges, label))
            raise ValueError(f"no four bins below {n_bins} and a label: {text}")
        top, left, bottom, right = (known[edge] for edge in edges)
        box = Box(top, left, bottom, right, label)
        if not (box.top < box.bottom and box.left < box.right):
            raise ValueError(f"{box} is empty")
        boxes.append(box)
    return boxes


def iou(a: Box, b: Box) -> float:
    """Divide the area that two boxes share by the area that they cover together."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    shared = max(height, 0) * max(width, 0)
    areas = [(box.bottom - box.top) * (box.right - box.left) for box in (a, b)]
    return shared / (sum(areas) - shared)


def precision_recall(
    found: Sequence[Sequence[Box]], truth: Sequence[Sequence[Box]], *, threshold: float = 0.5
) -> tuple[float, float]:
    """Return the share of boxes found that are right, and the share of true boxes that are found.

    In each picture the boxes found are taken in turn. One is right if a true box of its label,
    not yet taken by another, overlaps it by an ``iou`` of at least the threshold; it takes the one
    that it overlaps most. Where nothing was found at all, the precision is 0.

    Raises:
        ValueError: if there is not one list found for each true one, no true box at all, or the
            threshold lies outside 0 .. 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in 0 .. 1, got {threshold}")
    n_found, n_true = sum(map(len, found)), sum(map(len, truth))
    if len(found) != len(truth) or n_true == 0:
        raise ValueError(
            f"there must be true boxes, and as many lists of both: got {n_true} true boxes in "
            f"{len(truth)} pictures, {len(found)} pictures with boxes found"
        )
    right = 0
    for some, true in zip(found, truth, strict=True):
        free = list(true)
        for box in some:
            near = [t for t in free if t.label == box.label and iou(t, box) >= threshold]
            if near:
                free.remove(max(near, key=lambda t: iou(t, box)))
                right += 1
    return (right / n_found if n_found else 0.0), right / n_true


def picture_tokens(
    pictures: Float[Tensor, "batch height width"], *, patch: int, levels: int
) -> Int[Tensor, "batch seq"]:
    """Give each square of ``patch`` by ``patch`` pixels an id, row by row.

    Each grey value is rounded to one of ``levels``, and these are the digits of a number. One is
    added, since 0 is padding: ids lie in 1 .. ``levels ** patch ** 2``.

    Raises:
        ValueError: if the pictures are not real numbers ``(batch, height, width)``, a side is no
            multiple of ``patch``, a grey value lies outside 0 .. 1, or ``patch`` is below 1,
            ``levels`` below 2 or one of them no whole number.
    """
    if patch < 1 or levels < 2 or patch % 1 or levels % 1:
        raise ValueError(
            f"patch must be at least 1 and levels 2, both whole, got {patch} and {levels}"
        )
    if pictures.ndim != 3 or not pictures.is_floating_point():
        raise ValueError(
            "pictures must be real numbers (batch, height, width), "
            f"got {pictures.dtype} of shape {tuple(pictures.shape)}"
        )
    height, width = pictures.shape[1:]
    if height % patch or width % patch:
        raise ValueError(f"{height} by {width} pixels cannot be cut into squares of {patch}")
    if not ((pictures >= 0) & (pictures <= 1)).all():  # catches NaN too
        low, high = (float(end) for end in pictures.aminmax())
        raise ValueError(f"grey values of pictures must lie in 0 .. 1, got {low} to {high}")
    digits = (pictures * (levels - 1)).round().long()
    squares = rearrange(digits, "batch (y a) (x b) -> batch (y x) (a b)", a=patch, b=patch)
    return 1 + (squares * levels ** torch.arange(patch**2, device=pictures.device)).sum(-1)


def _check_labels(labels: Iterable[str], order: Sequence[str]) -> None:
    unknown = sorted(set(labels) - set(order))
    if unknown:
        raise ValueError(f"unknown labels {unknown}: expected some of {list(order)}")


def _check_canvas(size: float | int, n_bins: int) -> None:
    if not 0 < size < float("inf") or n_bins < 2 or n_bins % 1:
        raise ValueError(
            f"size must be above 0 and finite, n_bins at least 2 and whole, got {size} and {n_bins}"
        )
