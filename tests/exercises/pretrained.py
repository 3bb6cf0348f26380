"""Answers to the exercises of chapter 21."""

import math
import re

from transformer_lit.exercises import pretrained as check
from transformer_lit.pretrained import UNUSED, names

RIGHT, WRONG = {}, {}

# ---- parameters


def count(v, m, d, f, n):
    return (v + m + 2 + 2) * d + n * (4 * d * d + 2 * d * f + 9 * d + f)


RIGHT[check.parameters] = [count]

WRONG[check.parameters] = [
    (lambda v, m, d, f, n: count(v, m, d, f, n) - 2 * d, "One of these is missing"),
    (lambda v, m, d, f, n: count(v, m, d, f, n) - 4 * d, "two things are missing"),
    (lambda v, m, d, f, n: count(v, m, d, f, n) + 2 * d, "one norm too many"),
    (lambda v, m, d, f, n: count(v, 0, d, f, n), "a table of their own"),
    (lambda v, m, d, f, n: count(0, m, d, f, n), "the largest table"),
    (lambda v, m, d, f, n: count(v, m, d, f, n) - 4 * n * d, "4 * d_model are missing"),
    (lambda v, m, d, f, n: count(v, m, d, f, n) - n * (f + d), "both layers"),
    (lambda v, m, d, f, n: 3, "it is 1684, got 3."),
]


# ---- fold

RIGHT[check.fold] = [lambda w, p, s: (w, p + s[0]), lambda w, p, s: [w + s[0] / 2, p + s[0] / 2]]

WRONG[check.fold] = [
    (lambda w, p, s: (w, p), "nothing has changed"),
    (lambda w, p, s: (w + s[0], p + s[0]), "it counts twice"),
    (lambda w, p, s: (w, p + s[1]), "second segment"),
    (lambda w, p, s: (w, p + s.sum(0)), "only one segment"),
    (lambda w, p, s: (w, p - s[0]), "do not take it away"),
    (lambda w, p, s: p, "return two tables"),
    (lambda w, p, s: (w, None), "the table of places keeps its shape (3, 5), got NoneType"),
    (lambda w, p, s: (w[1:], p), "the table of words keeps its shape (7, 5), got (6, 5)"),
    (lambda w, p, s: (w, p + 1), "word 0 at place 0 should sum to"),
]


# ---- distance

RIGHT[check.distance] = [lambda c: math.sqrt(2 - 2 * c)]

WRONG[check.distance] = [
    (lambda c: 2 - 2 * c, "the square of the distance"),
    (lambda c: 1 - c, "half of the square"),
    (lambda c: math.sqrt(1 - c), "a factor of 2"),
    (lambda c: math.sqrt(1 - c * c), "the sine"),
    (math.acos, "along the sphere"),
    (lambda c: math.sqrt(2 + 2 * c), "mind the sign"),
    (lambda c: 7, "it is 1.0000, got 7.0000"),
]


# ---- our_name

TABLE = {theirs: ours for ours, theirs in names(13).items()}


def named(theirs):
    return TABLE.get(theirs, "")


RIGHT[check.our_name] = [named]


def replaced(theirs, pattern, text):
    return re.sub(pattern, text, named(theirs))


WRONG[check.our_name] = [
    (lambda theirs: theirs, "left as it is"),
    (lambda theirs: named(theirs).replace("gain", "weight"), "a norm's weight is its gain"),
    (
        lambda theirs: replaced(theirs, "attention.out_proj", "feed_forward.narrow"),
        "'output' stands in two places",
    ),
    (
        lambda theirs: replaced(theirs, r"blocks\.(\d)\d", r"blocks.\1"),
        "can have two digits",
    ),
    (
        lambda theirs: replaced(theirs, "q_proj", "v_proj"),
        "is our encoder.blocks.0.attention.q",
    ),
    (lambda theirs: 3, "return the name as a string"),
    (
        lambda theirs: "pooler.dense.bias" if theirs in UNUSED else named(theirs),
        "has no place in our model",
    ),
]
