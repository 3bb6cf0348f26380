"""Answers to the exercises of chapter 03."""

import torch.nn.functional as F

from transformer_lit.exercises import window as check
from transformer_lit.window import windows

RIGHT, WRONG = {}, {}

# ---- parameters

RIGHT[check.parameters] = [lambda w, v, d, h, c: v * d + w * d * h + h + h * c + c]

WRONG[check.parameters] = [
    (lambda w, v, d, h, c: w * d * h + h + h * c + c, "embedding is missing"),
    (lambda w, v, d, h, c: v * d + w * d * h + h * c + c, "hidden layer has a bias"),
    (lambda w, v, d, h, c: v * d + w * d * h + h + h * c, "output layer has a bias"),
    (lambda w, v, d, h, c: v * d + w * d * h + h * c, "each of the two linear layers"),
    (lambda w, v, d, h, c: w * v * d + w * d * h + h + h * c + c, "shared by all places"),
    (lambda w, v, d, h, c: v * d + w * (d * h + h) + h * c + c, "not one per place"),
    (lambda w, v, d, h, c: v * d + d * h + h + h * c + c, "the width is missing"),
    (lambda w, v, d, h, c: v**w * d + w * d * h + h + h * c + c, "larger alphabet"),
    (lambda w, v, d, h, c: 17, "it is 43, got 17"),
]


# ---- left_windows

RIGHT[check.left_windows] = [lambda t, width: F.pad(t, (width - 1, 0)).unfold(1, width, 1)]

WRONG[check.left_windows] = [
    (lambda t, w: t.unfold(1, w, 1), "the first symbols got no window"),
    (lambda t, w: F.pad(t, (0, w - 1)).unfold(1, w, 1), "look to the right"),
    (lambda t, w: windows(t, w), "in the middle"),
    (lambda t, w: F.pad(t, (w - 1, 0)).unfold(1, w, 1).flip(-1), "the symbol itself is last"),
    (lambda t, w: F.pad(t, (w, 0)).unfold(1, w, 1), "should have shape (2, 5, 3)"),
    (lambda t, w: F.pad(t, (w - 1, 0), value=1).unfold(1, w, 1), "should be [0, 2, 3]"),
    (lambda t, w: [t], "should be a tensor, got list"),
]


# ---- width_needed


def differ_at(first, second, position, side):
    """Look at ``side`` symbols on either side of a position; beyond the ends stands nothing."""
    around = range(position - side, position + side + 1)
    return [first[i] if 0 <= i < len(first) else "" for i in around] != [
        second[i] if 0 <= i < len(second) else "" for i in around
    ]


def solution(first, second, position):
    side = 0
    while not differ_at(first, second, position, side):
        side += 1
    return 2 * side + 1


RIGHT[check.width_needed] = [solution]


def blind_to_ends(first, second, position):
    for side in range(20):
        pairs = [(first[i : i + 1], second[i : i + 1]) for i in (position - side, position + side)]
        if any(a != b and a and b for a, b in pairs):
            return 2 * side + 1
    return 7


def only_right(first, second, position):
    side = 0
    while first[position : position + side + 1] == second[position : position + side + 1]:
        side += 1
        if side > 20:
            return 41
    return 2 * side + 1


WRONG[check.width_needed] = [
    (lambda a, b, i: solution(a, b, i) // 2, "on one side only"),
    (lambda a, b, i: solution(a, b, i) + 2, "width 5 is enough: the end of a word shows"),
    (blind_to_ends, "the end of a word shows"),
    (only_right, "two letters before"),
    (lambda a, b, i: 11, "it is 5, got 11"),
]
