"""Answers to the exercises of chapter 05."""

import copy

import torch

from transformer_lit.exercises import multi_head as check
from transformer_lit.multi_head import MultiHeadAttention

RIGHT, WRONG = {}, {}


PROJECTIONS = ("q_proj", "k_proj", "v_proj")


# ---- parameters

whole = MultiHeadAttention(d_model=512, n_heads=16)

RIGHT[check.parameters] = [sum(p.numel() for p in whole.parameters())]

WRONG[check.parameters] = [
    (4 * 512 * 512, "the biases are missing"),
    (3 * (512 * 512 + 512), "out_proj learns too."),
    (3 * 512 * 512, "out_proj learns too, and"),
    (16 * 4 * (512 * 512 + 512), "the heads share the width: each"),
    (16 * 4 * 512 * 512, "the heads share the width, and"),
    (4 * (512 * 32 + 32), "a sixteenth"),
    (16 * 3 * (32 * 32 + 32) + 512 * 512 + 512, "sees all 512 numbers"),
    (512, "How many rows"),
]


# ---- without_head


def block(layer, head):
    d_head = layer.out_proj.in_features // layer.n_heads
    return slice(head * d_head, (head + 1) * d_head)


def edited(edit):
    """An answer that zeroes what `edit` picks in a copy of the layer."""

    @torch.no_grad()
    def answer(layer, head):
        layer = copy.deepcopy(layer)
        for tensor in edit(layer, block(layer, head), head):
            tensor.zero_()
        return layer

    return answer


RIGHT[check.without_head] = [
    edited(edit)
    for edit in [
        lambda layer, rows, head: [layer.out_proj.weight[:, rows]],
        lambda layer, rows, head: [layer.v_proj.weight[rows], layer.v_proj.bias[rows]],
    ]
]

WRONG[check.without_head] = [
    (edited(edit), hint)
    for edit, hint in [
        (lambda layer, rows, head: [], "nothing has changed"),
        (lambda layer, rows, head: [layer.out_proj.weight[rows]], "The heads are its columns"),
        (lambda layer, rows, head: [layer.v_proj.weight[rows]], "still have their bias"),
        (
            lambda layer, rows, head: [layer.q_proj.weight[rows], layer.q_proj.bias[rows]],
            "all letters alike",
        ),
        (
            lambda layer, rows, head: [layer.out_proj.weight[:, rows], layer.out_proj.bias[rows]],
            "belongs to no head",
        ),
        (lambda layer, rows, head: [layer.out_proj.weight[:, head]], "that is one column"),
        (lambda layer, rows, head: [layer.out_proj.weight], "the sum of the other heads"),
    ]
]


@torch.no_grad()
def silenced_in_place(layer, head):
    layer.out_proj.weight[:, block(layer, head)] = 0
    return layer


small = MultiHeadAttention(d_model=10, n_heads=2)

WRONG[check.without_head] += [
    (silenced_in_place, "copy.deepcopy"),
    (lambda layer, head: layer.out_proj.weight, "got Parameter"),
    (lambda layer, head: small, "d_model 15 and 3 heads, got 10 and 2"),
]


# ---- reordered


def moved(order_of, names=PROJECTIONS, parts=("weight", "bias"), columns=True):
    """An answer that moves the blocks of heads in a copy of the layer."""

    @torch.no_grad()
    def answer(layer, order):
        layer, h = copy.deepcopy(layer), layer.n_heads
        order = order_of(order)
        for name in names:
            for part in parts:
                tensor = layer.get_parameter(f"{name}.{part}")
                tensor.copy_(torch.cat([tensor.chunk(h)[i] for i in order]))
        if columns:
            weight = layer.out_proj.weight
            weight.copy_(torch.cat([weight.chunk(h, dim=1)[i] for i in order], dim=1))
        return layer

    return answer


def inverse(order):
    return [order.index(i) for i in range(len(order))]


RIGHT[check.reordered] = [moved(list)]


def moved_in_place(layer, order):
    layer.load_state_dict(moved(list, columns=False)(layer, order).state_dict())
    return layer


WRONG[check.reordered] = [
    (moved_in_place, "copy.deepcopy"),
    (lambda layer, order: layer, "still in its old place"),
    (moved(list, names=["v_proj"]), "still in its old place"),
    (moved(inverse), "the other way around"),
    (moved(list, columns=False), "Values and the columns of out_proj"),
    (moved(list, names=["q_proj", "k_proj"]), "Values and the columns of out_proj"),
    (moved(list, names=["q_proj"]), "not the heads of the old layer"),
    (moved(list, parts=["weight"]), "not the heads of the old layer"),
]


# ---- merge


def joined(join=torch.cat, parts=("weight", "bias"), names=PROJECTIONS, out=True):
    def answer(separate):
        d_model = separate.out_proj.out_features
        whole = MultiHeadAttention(d_model=d_model, n_heads=len(separate.heads))
        with torch.no_grad():
            for name in names:
                for part in parts:
                    pieces = [head.get_parameter(f"{name}.{part}") for head in separate.heads]
                    whole.get_parameter(f"{name}.{part}").copy_(join(pieces))
        if out:
            whole.out_proj.load_state_dict(separate.out_proj.state_dict())
        return whole

    return answer


RIGHT[check.merge] = [joined()]

WRONG[check.merge] = [
    (lambda parts: parts, "got SeparateHeads"),
    (lambda parts: MultiHeadAttention(d_model=15, n_heads=1), "3 heads, got 15 and 1"),
    (lambda parts: MultiHeadAttention(d_model=15, n_heads=3), "the heads are not the old ones"),
    (joined(join=lambda pieces: torch.stack(pieces, 1).flatten(0, 1)), "interleaved"),
    (joined(parts=["weight"]), "the biases of q_proj"),
    (joined(out=False), "Check v_proj and out_proj"),
    (joined(names=["q_proj", "k_proj"]), "Check v_proj and out_proj"),
]
