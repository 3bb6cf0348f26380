"""The checks of chapter 09, the block."""

import copy

import torch
from torch import nn

from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.exercises import Mistake, exercise
from transformer_lit.multi_head import MultiHeadAttention

_D_MODEL, _HEADS, _D_FF = 6, 2, 11


def _randomly(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-4)


@exercise
def parameters(answer):
    """Check the number of parameters of a block of width 512 with 8 heads and d_ff 2048."""
    d, d_ff = 512, 2048
    attention, network, norms = 4 * (d * d + d), 2 * d * d_ff + d_ff + d, 4 * d
    right = attention + network + norms
    hints = {
        attention + network: "the norms learn too: a gain and a bias each.",
        attention + network + norms // 2: "there are two norms, and each has a gain and a bias.",
        network + norms: "the attention is missing: four projections.",
        attention + norms: "the feed-forward network is missing.",
        4 * d * d + 2 * d * d_ff: "that is the six matrices alone. Biases and norms are missing.",
        4 * d * d + 2 * d * d_ff + norms: "each of the six linear layers has a bias.",
        right - d_ff + d: "the first layer of the network has d_ff biases, not d_model.",
        8 * attention + network + norms: "the heads share the width: chapter 05.",
    }
    if int(answer) == right:
        return
    if int(answer) in hints:
        raise Mistake(hints[int(answer)])
    raise Mistake(f"{answer} is not it. Count attention, network and norms one by one.")


@exercise
def fold(answer):
    """Check a function that moves a norm's gain and bias into the linear layer behind it."""
    norm, linear = LayerNorm(d_model=5), nn.Linear(5, 5)
    with torch.no_grad():
        for seed, parameter in enumerate((norm.gain, norm.bias, linear.weight, linear.bias)):
            parameter.copy_(_randomly(*parameter.shape, seed=seed))
    given_norm, given_linear = copy.deepcopy(norm), copy.deepcopy(linear)
    found = answer(given_norm, given_linear)
    if not isinstance(found, nn.Linear):
        raise Mistake(f"return an nn.Linear, got {type(found).__name__}.")
    if not _same(given_linear.weight, linear.weight) or not _same(given_norm.gain, norm.gain):
        raise Mistake("the layers you were given have changed. Make a new one: copy.deepcopy.")
    gain, bias, weight = norm.gain.data, norm.bias.data, linear.weight.data
    if not _same(found.weight, weight * gain):
        if _same(found.weight, weight * gain[:, None]):
            raise Mistake(
                "you have scaled the rows, which are outputs. The gain belongs to the inputs, the "
                "columns."
            )
        if _same(found.weight, weight):
            raise Mistake("the gain is not in the weight yet.")
        if _same(found.weight, weight / gain):
            raise Mistake("multiply by the gain: the new layer does what the norm no longer does.")
        raise Mistake("column i of the weight meets number i of the norm, times its gain.")
    if not _same(found.bias, linear.bias + weight @ bias):
        if _same(found.bias, linear.bias):
            raise Mistake("the weight is right. The norm's bias has to go through the layer too.")
        if _same(found.bias, linear.bias + bias):
            raise Mistake("the norm's bias comes before the matrix, so it goes through it.")
        if _same(found.bias, linear.bias + (weight * gain) @ bias):
            raise Mistake("the norm's bias is added after the gain: take the old weight for it.")
        if _same(found.bias, weight @ bias):
            raise Mistake("the old bias of the layer is lost.")
        raise Mistake("the weight is right, the bias is not.")


@exercise
def norm_gradient(answer):
    """Check the gradient of (x - mean) / deviation, from x and the gradient of the result."""
    for seed in (0, 1):
        x, g = 3 * _randomly(3, 7, seed=seed), _randomly(3, 7, seed=seed + 2)
        leaf = x.clone().requires_grad_()
        layer = LayerNorm(d_model=7, eps=1e-12)
        (expected,) = torch.autograd.grad(layer(leaf), leaf, g)
        found = answer(x.clone(), g.clone())
        if not isinstance(found, torch.Tensor) or found.shape != x.shape:
            raise Mistake(f"the gradient has the shape of x, {tuple(x.shape)}.")
        if _same(found, expected):
            continue
        with torch.no_grad():
            normed = layer(x)
        deviation = x.std(-1, keepdim=True, correction=0)
        centred = g - g.mean(-1, keepdim=True)
        along = normed * (g * normed).mean(-1, keepdim=True)
        unbiased = x.std(-1, keepdim=True)
        mistakes = {
            "divide by the deviation.": centred - along,
            "that is the gradient if mean and deviation were constants. Both depend on x.": g
            / deviation,
            "the mean is in, but the deviation depends on x too.": centred / deviation,
            "the deviation is in, but the mean depends on x too.": (g - along) / deviation,
            "divide by the deviation of LayerNorm, the biased one.": (centred - along) / unbiased,
            "what lies along the normalised vector is taken away, not added.": (centred + along)
            / deviation,
            "the second part is a mean over the features, not a sum.": (centred - 7 * along)
            / deviation,
        }
        for hint, wrong in mistakes.items():
            if _same(found, wrong):
                raise Mistake(hint)
        raise Mistake("it differs from what autograd finds. Try a vector of two numbers by hand.")


def _block() -> Block:
    made = Block(
        attention=MultiHeadAttention(d_model=_D_MODEL, n_heads=_HEADS),
        feed_forward=FeedForward(d_model=_D_MODEL, d_ff=_D_FF),
        d_model=_D_MODEL,
    )
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.copy_(_randomly(*parameter.shape, seed=seed) / 2)
    return made


@exercise
def as_identity(answer):
    """Check a function from a pre-norm block to a copy that returns its input, and can learn."""
    block, given, x = _block(), _block(), _randomly(2, 5, _D_MODEL, seed=99)
    found = answer(given)
    if not isinstance(found, Block):
        raise Mistake(f"return a Block, got {type(found).__name__}.")
    if not _same(given(x)[0], block(x)[0]):
        raise Mistake("the block you were given has changed. Work on a copy: copy.deepcopy.")
    output, _ = found(x)
    last = {"out_proj": found.attention.out_proj, "narrow": found.feed_forward.narrow}
    if not _same(output, x):
        if _same(output, block(x)[0]):
            raise Mistake("nothing has changed.")
        if not any(layer.weight.any() for layer in last.values()):
            raise Mistake("the weights are zero, their biases are still added.")
        if not found.attention_norm.gain.any() or not found.feed_forward_norm.gain.any():
            raise Mistake("a norm without its gain still hands on its bias.")
        for name, other in (("out_proj", "narrow"), ("narrow", "out_proj")):
            if not last[name].weight.any():
                raise Mistake(f"{name} is silent, {other} is not. Both parts add something.")
        raise Mistake("it should return its input. What is the last layer of each part?")
    output.sum().backward()
    for name, layer in last.items():
        if layer.weight.grad is None or not layer.weight.grad.any():
            raise Mistake(
                f"it returns its input, and always will: the weight of {name} gets no gradient, "
                "because nothing comes in. Zero the last layer of each part only."
            )
    for name in ("attention.q_proj", "attention.v_proj", "feed_forward.widen"):
        if not _same(found.get_parameter(f"{name}.weight"), block.get_parameter(f"{name}.weight")):
            raise Mistake(f"{name} has changed, and need not.")
