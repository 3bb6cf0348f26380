"""Answers to the exercises of chapter 01."""

import math

import torch
from torch.nn.utils.rnn import pad_sequence

from transformer_lit.exercises import vocabulary as check
from transformer_lit.vocabulary import real_positions

RIGHT, WRONG = {}, {}

# ---- distance

RIGHT[check.distance] = [math.sqrt(2) / 3, torch.tensor(2.0).sqrt() / 3, 0.471]

WRONG[check.distance] = [
    (math.sqrt(2), "each counts a third"),
    (2 / 9, "Take its root"),
    (2 / 3, "Square them first"),
    (0.707, "not two"),
    (0, "differ at two places"),
    (17, "17 is not it"),
    ("far", "ValueError"),
]


# ---- real_max


def hidden(values, lengths):
    return ~real_positions(lengths, values.shape[1])[..., None]


def solution_max(values, lengths):
    return values.masked_fill(hidden(values, lengths), -math.inf).amax(1)


RIGHT[check.real_max] = [
    solution_max,
    lambda values, lengths: torch.stack(
        [row[:length].amax(0) for row, length in zip(values, lengths, strict=True)]
    ),
]

WRONG[check.real_max] = [
    (lambda v, n: v.amax(1), "padded positions take part"),
    (lambda v, n: (v * ~hidden(v, n)).amax(1), "hidden positions became 0"),
    (lambda v, n: v.masked_fill(~hidden(v, n), -math.inf).amax(1), "is the mask inverted"),
    (lambda v, n: v.masked_fill(hidden(v, n), -1.0).amax(1), "not the largest values"),
    (lambda v, n: v.masked_fill(hidden(v, n), -math.inf).max(1), "Return the values"),
    (lambda v, n: solution_max(v, n).amax(0), "one result for the whole batch"),
    (lambda v, n: solution_max(v, n)[:, None], "axis of size one"),
    (lambda v, n: v.amax(2), "should have shape (3, 2), got (3, 5)"),
    (lambda v, n: [0.0], "should be a tensor, got list"),
]


# ---- pad


def solution_pad(sequences):
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    values = torch.zeros(len(sequences), int(lengths.max()), sequences[0].shape[1])
    for row, sequence in zip(values, sequences, strict=True):
        row[: len(sequence)] = sequence
    return values, lengths


def lengths_of(sequences):
    return torch.tensor([len(sequence) for sequence in sequences])


def front(sequences):
    values = pad_sequence([sequence.flip(0) for sequence in sequences], True).flip(1)
    return values, lengths_of(sequences)


def cut(sequences):
    shortest = int(lengths_of(sequences).min())
    return torch.stack([sequence[:shortest] for sequence in sequences]), lengths_of(sequences)


def mixed_up(sequences):
    return pad_sequence(sequences, True).flip(0), lengths_of(sequences)


RIGHT[check.pad] = [solution_pad, lambda s: (pad_sequence(s, True), [len(one) for one in s])]

WRONG[check.pad] = [
    (front, "at the front"),
    (lambda s: (pad_sequence(s, True, -1), lengths_of(s)), "filled with -1, not 0"),
    (lambda s: pad_sequence(s, True), "(values, lengths)"),
    (lambda s: (pad_sequence(s, True), lengths_of(s), 0), "got 3"),
    (cut, "cut to the shortest"),
    (lambda s: (pad_sequence(s), lengths_of(s)), "batch comes first"),
    (lambda s: (pad_sequence(s, True)[..., 0], lengths_of(s)), "should have shape (3, 5, 2)"),
    (lambda s: (s, lengths_of(s)), "values should be a tensor, got list"),
    (mixed_up, "row i starts with sequence i"),
    (lambda s: (pad_sequence(s, True), [5, 5, 5]), "[3, 1, 5], got [5, 5, 5]"),
]
