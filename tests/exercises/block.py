"""Answers to the exercises of chapter 09."""

import copy

import torch
from torch import nn

from transformer_lit.block import Block, FeedForward
from transformer_lit.exercises import block as check
from transformer_lit.multi_head import MultiHeadAttention

RIGHT, WRONG = {}, {}

# ---- parameters

whole = Block(
    attention=MultiHeadAttention(d_model=512, n_heads=8),
    feed_forward=FeedForward(d_model=512, d_ff=2048),
    d_model=512,
)

RIGHT[check.parameters] = [sum(p.numel() for p in whole.parameters())]

WRONG[check.parameters] = [
    (3_152_384 - 2048, "the norms learn too"),
    (3_152_384 - 1024, "there are two norms"),
    (3_152_384 - 4 * (512 * 512 + 512), "the attention is missing"),
    (4 * (512 * 512 + 512) + 2048, "the feed-forward network is missing"),
    (12 * 512 * 512, "six matrices alone"),
    (12 * 512 * 512 + 2048, "each of the six"),
    (3_152_384 - 2048 + 512, "d_ff biases"),
    (3_152_384 + 7 * 4 * (512 * 512 + 512), "share the width"),
    (512, "one by one"),
]


# ---- fold


def fold(weight, bias):
    """An answer that computes weight and bias from gain, norm bias, weight and bias."""

    @torch.no_grad()
    def answer(norm, linear):
        new = copy.deepcopy(linear)
        old = norm.gain, norm.bias, linear.weight, linear.bias
        new.weight.copy_(weight(*old))
        new.bias.copy_(bias(*old))
        return new

    return answer


def scaled(gain, shift, weight, bias):
    return weight * gain


def moved(gain, shift, weight, bias):
    return bias + weight @ shift


RIGHT[check.fold] = [fold(scaled, moved)]


def in_place(norm, linear):
    with torch.no_grad():
        linear.bias += linear.weight @ norm.bias
        linear.weight *= norm.gain
    return linear


WRONG[check.fold] = [
    (fold(lambda g, s, w, b: w * g[:, None], moved), "you have scaled the rows"),
    (fold(lambda g, s, w, b: w, moved), "not in the weight yet"),
    (fold(lambda g, s, w, b: w / g, moved), "multiply by the gain"),
    (fold(lambda g, s, w, b: w + g, moved), "column i"),
    (fold(scaled, lambda g, s, w, b: b), "has to go through the layer too"),
    (fold(scaled, lambda g, s, w, b: b + s), "comes before the matrix"),
    (fold(scaled, lambda g, s, w, b: b + (w * g) @ s), "take the old weight"),
    (fold(scaled, lambda g, s, w, b: w @ s), "old bias of the layer is lost"),
    (fold(scaled, lambda g, s, w, b: 2 * b), "the bias is not"),
    (in_place, "have changed"),
    (lambda norm, linear: linear.weight, "return an nn.Linear, got Parameter"),
]


# ---- norm_gradient


def pieces(x, g):
    deviation = x.std(-1, keepdim=True, correction=0)
    normed = (x - x.mean(-1, keepdim=True)) / deviation
    return g - g.mean(-1, keepdim=True), normed * (g * normed).mean(-1, keepdim=True), deviation


def right_gradient(x, g):
    centred, along, deviation = pieces(x, g)
    return (centred - along) / deviation


RIGHT[check.norm_gradient] = [right_gradient]


def wrong_gradient(combine):
    return lambda x, g: combine(x, g, *pieces(x, g))


WRONG[check.norm_gradient] = [
    (wrong_gradient(combine), hint)
    for combine, hint in [
        (lambda x, g, centred, along, s: centred - along, "divide by the deviation."),
        (lambda x, g, centred, along, s: g / s, "were constants"),
        (lambda x, g, centred, along, s: centred / s, "the deviation depends on x too"),
        (lambda x, g, centred, along, s: (g - along) / s, "the mean depends on x too"),
        (lambda x, g, centred, along, s: (centred - along) / x.std(-1, keepdim=True), "biased"),
        (lambda x, g, centred, along, s: (centred + along) / s, "taken away, not added"),
        (lambda x, g, centred, along, s: (centred - 7 * along) / s, "not a sum"),
        (lambda x, g, centred, along, s: x, "what autograd finds"),
        (lambda x, g, centred, along, s: s, "the shape of x, (3, 7)"),
    ]
]


# ---- as_identity


def zeroed(*names):
    @torch.no_grad()
    def answer(block):
        block = copy.deepcopy(block)
        for name in names:
            block.get_parameter(name).zero_()
        return block

    return answer


LAST = (
    "attention.out_proj.weight",
    "attention.out_proj.bias",
    "feed_forward.narrow.weight",
    "feed_forward.narrow.bias",
)


RIGHT[check.as_identity] = [zeroed(*LAST)]


def given_back(block):
    with torch.no_grad():
        for name in LAST:
            block.get_parameter(name).zero_()
    return block


WRONG[check.as_identity] = [
    (copy.deepcopy, "nothing has changed"),
    (given_back, "the block you were given has changed"),
    (zeroed(LAST[0], LAST[2]), "their biases are still added"),
    (zeroed("attention_norm.gain", "feed_forward_norm.gain"), "still hands on its bias"),
    (zeroed(*LAST[:2]), "out_proj is silent, narrow is not"),
    (zeroed(*LAST[2:]), "narrow is silent, out_proj is not"),
    (zeroed("attention.v_proj.weight"), "last layer of each part?"),
    (
        zeroed(*LAST, "feed_forward.widen.weight", "feed_forward.widen.bias"),
        "the weight of narrow gets no gradient",
    ),
    (zeroed(*LAST, "attention.q_proj.weight"), "attention.q_proj has changed"),
    (lambda block: nn.Identity(), "return a Block, got Identity"),
]
