"""Answers to the exercises of chapter 07."""

import copy
import math

import torch

from transformer_lit.exercises import relative_positions as check
from transformer_lit.relative_positions import (
    ALiBi,
    RelativePosition,
    RoPE,
    offsets,
    slopes,
    to_half_split,
)

RIGHT, WRONG = {}, {}

# ---- half_distance

RIGHT[check.half_distance] = [lambda slope: math.log(2) / slope]

WRONG[check.half_distance] = [
    (lambda slope: 1 / slope, "1 / e of the weight"),
    (lambda slope: 0.5 / slope, "halves do not add"),
    (lambda slope: math.log(2) * slope, "Divide by it"),
    (lambda slope: math.log(0.5) / slope, "its sign is not"),
    (lambda slope: 17, "it is 0.693 steps, got 17.000"),
]


# ---- complex_score


def turned(steps, angles):
    return torch.polar(torch.ones_like(angles), steps * angles)


RIGHT[check.complex_score] = [lambda q, k, s, a: (q * k.conj() * turned(s, a)).real.sum()]

WRONG[check.complex_score] = [
    (lambda q, k, s, a: (q * k * turned(s, a)).real.sum(), "conjugate the key"),
    (lambda q, k, s, a: (q * k.conj() * turned(-s, a)).real.sum(), "the wrong way"),
    (lambda q, k, s, a: (q * k.conj()).real.sum(), "the angles are missing"),
    (lambda q, k, s, a: (q * k.conj() * turned(s, a)).sum(), "yours is complex"),
    (lambda q, k, s, a: (q * k.conj() * turned(s, a)).real, "sum over the pairs"),
    (lambda q, k, s, a: torch.tensor(17.0), "got 17.000"),
]


# ---- other_layout


def converted(layer, names=("q_proj", "k_proj"), layout="half-split", what=None, whole=False):
    layer = copy.deepcopy(layer)
    d_head = layer.position.d_head
    n, size = (1, d_head * layer.n_heads) if whole else (layer.n_heads, d_head)
    order = (torch.arange(n)[:, None] * size + to_half_split(size)).flatten()
    with torch.no_grad():
        for name in names:
            for part in what or ("weight", "bias"):
                tensor = getattr(layer.get_submodule(name), part)
                tensor.copy_(tensor[order])
    layer.position = RoPE(d_head=d_head, layout=layout)
    return layer


def in_place(layer):
    layer.position = RoPE(d_head=layer.position.d_head, layout="half-split")
    return layer


def by_columns(layer):
    new = converted(layer, ())
    order = torch.cat([h * 10 + to_half_split(10) for h in range(layer.n_heads)])
    for name in ("q_proj", "k_proj"):
        new.get_submodule(name).weight.data = layer.get_submodule(name).weight.data[:, order]
        new.get_submodule(name).bias.data = layer.get_submodule(name).bias.data[order]
    return new


RIGHT[check.other_layout] = [converted]

WRONG[check.other_layout] = [
    (lambda layer: layer.q_proj, "return a MultiHeadAttention, got Linear"),
    (in_place, "Work on a copy"),
    (lambda layer: converted(layer, layout="interleaved"), "whose layout is 'half-split'"),
    (lambda layer: converted(layer, ()), "needs other weights"),
    (lambda layer: converted(layer, ("q_proj",)), "both need the new order"),
    (lambda layer: converted(layer, ("q_proj", "k_proj", "v_proj")), "Leave v_proj"),
    (lambda layer: converted(layer, what=("weight",)), "Reorder them too"),
    (lambda layer: converted(layer, whole=True), "from one head to another"),
    (by_columns, "Row i of a projection"),
]


# ---- logarithmic


class Logarithmic(RelativePosition):
    def __init__(self, *, n_heads):
        super().__init__()
        self.slopes = slopes(n_heads)[:, None, None]

    def bias(self, q, k):
        distance = offsets(q.shape[-2], k.shape[-2]).abs()
        return self.made_of(distance)[None]

    def made_of(self, distance):
        return -self.slopes * distance.log1p()


def variant(made_of):
    return type("Variant", (Logarithmic,), {"made_of": made_of})


class OnlyBack(Logarithmic):
    def bias(self, q, k):
        return -(self.slopes * (-offsets(q.shape[-2], k.shape[-2])).clamp(min=0).log1p())[None]


RIGHT[check.logarithmic] = [Logarithmic]

WRONG[check.logarithmic] = [
    (variant(lambda self, d: self.slopes * d.log1p()), "raises the scores"),
    (variant(lambda self, d: -self.slopes * d.log()), "not finite"),
    (variant(lambda self, d: -d.log1p()[None]), "Each has its own"),
    (variant(lambda self, d: -self.slopes[0] * d.log1p()), "(1, heads, query, key)"),
    (variant(lambda self, d: -2 * self.slopes * d.log1p()), "should be -0.069, got -0.137"),
    (ALiBi, "ALiBi itself"),
    (OnlyBack, "absolute distance"),
    (lambda n_heads: torch.nn.Identity(), "should be a RelativePosition"),
    (lambda n_heads: RelativePosition(), "the hook to override is bias"),
]
