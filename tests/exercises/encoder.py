"""Answers to the exercises of chapter 10."""

import math

import torch

from transformer_lit.encoder import mean_pool
from transformer_lit.exercises import encoder as check
from transformer_lit.vocabulary import real_positions

RIGHT, WRONG = {}, {}

# ---- parameters


def attention(d):
    return 4 * (d * d + d)


def feed_forward(d, f):
    return 2 * d * f + d + f


RIGHT[check.parameters] = [lambda n, d, f: n * (attention(d) + feed_forward(d, f) + 4 * d) + 2 * d]

WRONG[check.parameters] = [
    (lambda n, d, f: n * (attention(d) + feed_forward(d, f) + 4 * d), "behind the last block"),
    (lambda n, d, f: n * (attention(d) + feed_forward(d, f) + 6 * d), "not one more per block"),
    (lambda n, d, f: n * (4 * d * d + feed_forward(d, f) + 4 * d) + 2 * d, "4 * d_model are"),
    (lambda n, d, f: n * (attention(d) + feed_forward(d, f)) + 2 * d, "4 * d_model are"),
    (lambda n, d, f: n * (attention(d) + feed_forward(d, f)), "a LayerNorm learns too"),
    (lambda n, d, f: n * (attention(d) + feed_forward(d, f) + 2 * d) + d, "a bias as well"),
    (lambda n, d, f: n * (attention(d) + 2 * d * f + 4 * d) + 2 * d, "both layers"),
    (
        lambda n, d, f: n * (3 * (d * d + d) + feed_forward(d, f) + 4 * d) + 2 * d,
        "out_proj learns too",
    ),
    (lambda n, d, f: attention(d) + feed_forward(d, f) + 6 * d, "that is one block"),
    (lambda n, d, f: 17, "with n_layers 3, d_model 7 and d_ff 11 it is 1286, got 17"),
]


# ---- max_pool


def padding(x, lengths):
    return ~real_positions(lengths, x.shape[1])[..., None]


RIGHT[check.max_pool] = [lambda x, n: x.masked_fill(padding(x, n), -torch.inf).amax(1)]

WRONG[check.max_pool] = [
    (lambda x, n: x.amax(1), "the padding takes part"),
    (lambda x, n: x.masked_fill(padding(x, n), 0).amax(1), "zeros in place of the padding"),
    (lambda x, n: (x * ~padding(x, n)).amax(1), "zeros in place of the padding"),
    (lambda x, n: x.amin(1), "the smallest number"),
    (mean_pool, "that is the mean"),
    (
        lambda x, n: torch.stack([r[: max(m - 1, 1)].amax(0) for r, m in zip(x, n.tolist())]),  # noqa: B905
        "one position too few",
    ),
    (lambda x, n: x.max(1), "return one tensor of vectors, got max"),
    (lambda x, n: x.amax(2), "should be one vector per sequence, (3, 5), got (3, 7)"),
    (lambda x, n: x[:, 0], "should become"),
]


# ---- blocks_needed

RIGHT[check.blocks_needed] = [lambda distance, reach: math.ceil(distance / reach)]

WRONG[check.blocks_needed] = [
    (lambda d, r: d // r, "what is left over needs a block too"),
    (lambda d, r: d // r + 1, "for a distance of 12 and a reach of 3 the last block is one"),
    (lambda d, r: d, "over as many places as it reaches"),
    (lambda d, r: math.ceil(d / (2 * r + 1)), "only reach of them on one side"),
    (lambda d, r: math.ceil(d / (2 * r)), "only the places on one side count"),
    (lambda d, r: d - r, "one block reaches that much less far"),
    (lambda d, r: 11, "it is 7, got 11"),
]


# ---- attention_pool


def scores(x, query):
    return x @ query / x.shape[-1] ** 0.5


def pooled(x, weights):
    return (weights[..., None] * x).sum(1)


def mixed(weigh):
    """An answer that weighs by a function of the scores and of what is real."""

    def answer(x, query, lengths):
        return pooled(x, weigh(scores(x, query), ~padding(x, lengths)[..., 0]))

    return answer


RIGHT[check.attention_pool] = [mixed(lambda s, real: s.masked_fill(~real, -torch.inf).softmax(-1))]

WRONG[check.attention_pool] = [
    (mixed(lambda s, real: s.softmax(-1)), "the padding gets weight"),
    (mixed(lambda s, real: s.softmax(-1) * real), "no longer sum to one"),
    (mixed(lambda s, real: (s * real).softmax(-1)), "a score of 0 still gets a weight"),
    (mixed(lambda s, real: s.masked_fill(~real, -torch.inf).softmax(0)), "over the sequences"),
    (mixed(lambda s, real: (s * 5**0.5).masked_fill(~real, -torch.inf).softmax(-1)), "root of"),
    (mixed(lambda s, real: real / real.sum(-1, keepdim=True)), "the query is not used"),
    (mixed(lambda s, real: s * 0), "should become"),
    (lambda x, query, n: x, "(3, 5), got (3, 7, 5)"),
]
