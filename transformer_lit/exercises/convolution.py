"""The checks of chapter 18, convolution."""

import torch
import torch.nn.functional as F

from transformer_lit.exercises import Mistake, exercise


@exercise
def seen(answer):
    """Check a function from layers and k to the side of the square that one output can see."""
    for n_layers, k in ((3, 5), (2, 3), (7, 3), (1, 7)):
        right = 1 + n_layers * (k - 1)
        found = int(answer(n_layers, k))
        if found == right:
            continue
        hints = {
            k**n_layers: "it grows by a sum, not by a product: each layer adds the same margin.",
            n_layers * k: "neighbouring kernels overlap: each layer adds k - 1, not k.",
            n_layers * (k - 1): "the pixel itself counts too.",
            1 + n_layers * (k // 2): "a kernel reaches to both sides.",
            1 + (n_layers - 1) * (k - 1): "that is one layer too few.",
            k: f"that is one layer, and there are {n_layers}.",
            right**2: "that is the number of pixels; asked is the side of the square.",
        }
        raise Mistake(
            hints.get(found, f"for {n_layers} layers and k = {k} it is {right}, got {found}.")
        )


@exercise
def centers(answer):
    """Check a function from k and dilation to where the heads of a dilated convolution look."""
    for k, dilation in ((3, 2), (5, 3), (3, 1)):
        step = torch.arange(k) - k // 2
        plain = torch.cartesian_prod(step, step)
        right = plain * dilation
        found = answer(k, dilation)
        if not isinstance(found, torch.Tensor) or found.shape != right.shape:
            raise Mistake(f"the answer should be a tensor of shape {tuple(right.shape)}.")
        if torch.equal(found.double(), right.double()):
            continue
        mistakes = {
            "that is the kernel without gaps: the dilation is not in it.": plain,
            "the middle of the kernel should stand at (0, 0): look to both sides.": right
            - right[0],
            "rows first: the kernel is read row by row, and this one column by column.": right.flip(
                1
            ),
            "the kernel is turned around: it starts at the upper left.": -right,
        }
        for hint, wrong in mistakes.items():
            if torch.equal(found.double(), wrong.double()):
                raise Mistake(hint)
        raise Mistake(
            f"for k = {k} and dilation {dilation} the first head looks at {right[0].tolist()}, "
            f"got {found[0].tolist()}."
        )


@exercise
def kernel(answer):
    """Check a function from a linear layer's weight, size and channels to a convolution's."""
    torch.manual_seed(0)
    for d_model, channels, size in ((5, 3, 2), (7, 2, 3)):
        weight = torch.randn(d_model, channels * size**2)
        right = weight.view(d_model, channels, size, size)
        found = answer(weight.clone(), size, channels)
        if not isinstance(found, torch.Tensor) or found.shape != right.shape:
            got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise Mistake(
                f"F.conv2d wants (d_model, channels, size, size), here {tuple(right.shape)}, "
                f"got {got}."
            )
        if torch.equal(found, right):
            continue
        mistakes = {
            "rows and columns are swapped.": right.transpose(2, 3),
            "the channels come first in a patch, not last.": weight.view(
                d_model, size, size, channels
            ).permute(0, 3, 1, 2),
            "nn.Conv2d does not turn its kernel around: no flip is needed.": right.flip(2, 3),
            "the first axis of a linear layer's weight is its outputs.": weight.reshape(
                -1, d_model
            ).T.reshape(right.shape),
        }
        for hint, wrong in mistakes.items():
            if torch.equal(found, wrong):
                raise Mistake(hint)
        raise Mistake("the shape is right, and the numbers are not in their places.")


def _plain(k, seed=0):
    """A convolution k x k of one channel, with a bias."""
    weight = torch.randn(1, 1, k, k, generator=torch.Generator().manual_seed(seed))
    return lambda x: F.conv2d(x, weight, torch.tensor([0.5]), padding=k // 2)


def _placed(x):
    """A mixture with all neighbours, whose weight differs from place to place."""
    return _plain(3)(x) * torch.linspace(1, 2, x.shape[-1])


def _brightest(x):
    """Attention by content within the window: everybody takes the brightest neighbour."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


_NO_CONVOLUTION = {
    "one that sees 5 x 5 pixels": _plain(5),
    "one that adds the mean of the image": lambda x: _plain(3)(x) + x.mean((2, 3), keepdim=True),
    "one that cuts off below zero": lambda x: _plain(3)(x).relu(),
    "one that takes the brightest neighbour": _brightest,
    "one whose weights depend on the column": _placed,
}


@exercise
def could_be(answer):
    """Check a function that tells whether a layer on images can be a 3 x 3 convolution."""
    x = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    for seed in (0, 1):
        if not answer(_plain(3, seed), x.clone()):
            if all(answer(layer, x.clone()) for layer in _NO_CONVOLUTION.values()):
                raise Mistake("the answer is True for a convolution, and False for the others.")
            raise Mistake(
                "a convolution was refused. It has a bias, it rounds, and its border is special: "
                "use differences, torch.allclose, and pixels within."
            )
    if not answer(lambda x: x, x.clone()):
        raise Mistake("the layer that changes nothing was refused. It is a convolution too.")
    missed = [name for name, layer in _NO_CONVOLUTION.items() if answer(layer, x.clone())]
    if len(missed) == len(_NO_CONVOLUTION):
        raise Mistake("everything was called a convolution.")
    why = {
        "one that sees 5 x 5 pixels": "Change a pixel two steps away.",
        "one that adds the mean of the image": "Change a pixel far away.",
        "one that cuts off below zero": "Is layer(a + b) + layer(0) = layer(a) + layer(b)?",
        "one that takes the brightest neighbour": "Is layer(a + b) + layer(0) = layer(a) + "
        "layer(b)?",
        "one whose weights depend on the column": "Shift the image: the output should shift too.",
    }
    if missed:
        raise Mistake(f"{missed[0]} was called a convolution. {why[missed[0]]}")
