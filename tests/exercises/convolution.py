"""Answers to the exercises of chapter 18."""

import torch

from transformer_lit.exercises import convolution as check

RIGHT, WRONG = {}, {}

# ---- seen

RIGHT[check.seen] = [lambda n, k: 1 + n * (k - 1)]

WRONG[check.seen] = [
    (lambda n, k: k**n, "not by a product"),
    (lambda n, k: n * k, "each layer adds k - 1"),
    (lambda n, k: n * (k - 1), "the pixel itself"),
    (lambda n, k: 1 + n * (k // 2), "to both sides"),
    (lambda n, k: (1 + n * (k - 1)) ** 2, "asked is the side"),
    (lambda n, k: k, "that is one layer"),
    (lambda n, k: 100, "it is 13, got 100"),
]


# ---- centers


def spread(k, dilation):
    step = dilation * (torch.arange(k) - k // 2)
    return torch.cartesian_prod(step, step)


RIGHT[check.centers] = [spread, lambda k, dilation: spread(k, dilation).float()]

WRONG[check.centers] = [
    (lambda k, d: spread(k, 1), "the dilation is not in it"),
    (lambda k, d: spread(k, d) - spread(k, d)[0], "should stand at (0, 0)"),
    (lambda k, d: spread(k, d).flip(1), "rows first"),
    (lambda k, d: -spread(k, d), "turned around"),
    (lambda k, d: spread(k, d)[:-1], "of shape (9, 2)"),
    (lambda k, d: [[0, 0]], "of shape (9, 2)"),
    (lambda k, d: spread(k, d + 1), "looks at [-2, -2], got [-3, -3]"),
]


# ---- kernel

RIGHT[check.kernel] = [lambda w, size, channels: w.view(len(w), channels, size, size)]

WRONG[check.kernel] = [
    (lambda w, s, c: w.view(-1, c, s, s).transpose(2, 3), "rows and columns are swapped"),
    (lambda w, s, c: w.view(-1, s, s, c).permute(0, 3, 1, 2), "channels come first"),
    (lambda w, s, c: w.view(-1, c, s, s).flip(2, 3), "no flip is needed"),
    (lambda w, s, c: w, "here (5, 3, 2, 2), got (5, 12)"),
    (lambda w, s, c: 3, "got int"),
    (lambda w, s, c: w.view(-1, c, s, s) + 1, "not in their places"),
]


# ---- could_be


def is_linear(layer, x):
    a, b = x[:1], x[1:]
    return torch.allclose(layer(a + b) + layer(0 * a), layer(a) + layer(b), atol=1e-4)


def is_local(layer, x, near=1):
    changed = x.clone()
    changed[..., 4, 4] += 1
    gap = (layer(changed) - layer(x)).abs()
    gap[..., 4 - near : 5 + near, 4 - near : 5 + near] = 0
    return bool(gap.max() < 1e-5)


def is_equivariant(layer, x):
    found, expected = layer(x.roll(1, -1)), layer(x).roll(1, -1)
    return torch.allclose(found[..., 1:-1, 3:-3], expected[..., 1:-1, 3:-3], atol=1e-4)


def is_all(layer, x):
    return is_linear(layer, x) and is_local(layer, x) and is_equivariant(layer, x)


RIGHT[check.could_be] = [is_all]

WRONG[check.could_be] = [
    (lambda layer, x: True, "everything was called"),
    (lambda layer, x: False, "a convolution was refused"),
    (lambda layer, x: not is_all(layer, x), "True for a convolution"),
    (lambda layer, x: is_all(layer, x) and bool(layer(0 * x).max() > 0), "changes nothing"),
    (lambda layer, x: is_linear(layer, x) and is_equivariant(layer, x), "5 x 5 pixels"),
    (
        lambda layer, x: (
            is_all(layer, x)
            or (is_linear(layer, x) and is_equivariant(layer, x) and not is_local(layer, x, 2))
        ),
        "adds the mean",
    ),
    (lambda layer, x: is_local(layer, x) and is_equivariant(layer, x), "below zero"),
    (lambda layer, x: is_local(layer, x) and is_linear(layer, x), "depend on the column"),
    (
        lambda layer, x: (
            is_all(layer, x) and torch.equal(layer(x).roll(1, -1), layer(x.roll(1, -1)))
        ),
        "its border is special",
    ),
]
