"""The checks of chapter 05, many heads."""

import copy

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.multi_head import MultiHeadAttention, SeparateHeads

_HEADS, _D_HEAD = 3, 5
_D_MODEL = _HEADS * _D_HEAD
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_ORDER = [2, 0, 1]


def _layer() -> MultiHeadAttention:
    layer = MultiHeadAttention(d_model=_D_MODEL, n_heads=_HEADS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return layer


def _vectors() -> torch.Tensor:
    return torch.randn(2, 7, _D_MODEL, generator=torch.Generator().manual_seed(1))


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return torch.allclose(_output(a), _output(b), atol=1e-4)


@torch.no_grad()
def _output(layer: torch.nn.Module) -> torch.Tensor:
    output = layer(_vectors())
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def _weights(layer: MultiHeadAttention) -> torch.Tensor:
    return layer(_vectors(), need_weights=True)[1]


def _expect_layer(found: object, n_heads: int) -> None:
    if not isinstance(found, MultiHeadAttention):
        raise Mistake(f"return a MultiHeadAttention, got {type(found).__name__}.")
    sizes = found.q_proj.in_features, found.n_heads
    if sizes != (_D_MODEL, n_heads):
        raise Mistake(
            f"the layer should have d_model {_D_MODEL} and {n_heads} heads, "
            f"got {sizes[0]} and {sizes[1]}."
        )


def _with(layer: MultiHeadAttention, **changes: torch.Tensor) -> MultiHeadAttention:
    """A copy in which some parameters, named with a double underscore, are replaced."""
    changed = copy.deepcopy(layer)
    for name, value in changes.items():
        changed.get_parameter(name.replace("__", ".")).data = value
    return changed


@exercise
def parameters(answer):
    """Check the number of parameters of a layer of width 512 with 16 heads."""
    square, bias = 512 * 512, 512
    right = 4 * (square + bias)
    hints = {
        4 * square: "the biases are missing.",
        3 * (square + bias): "out_proj learns too.",
        3 * square: "out_proj learns too, and each projection has a bias.",
        16 * right: "the heads share the width: each has matrices of 512 rows and 32 columns.",
        16 * 4 * square: "the heads share the width, and each projection has a bias.",
        4 * (512 * 32 + 32): "that is a sixteenth: one head's share of the four projections.",
        3 * 16 * 32 * 33 + square + bias: "each head sees all 512 numbers of the input, not 32.",
    }
    if int(answer) == right:
        return
    if int(answer) in hints:
        raise Mistake(hints[int(answer)])
    raise Mistake(f"{answer} is not it. How many rows and columns has each of the four matrices?")


@exercise
def without_head(answer):
    """Check a function from a layer and a head to a layer in which that head adds nothing."""
    for head in (1, 2):
        layer, given = _layer(), _layer()
        found = answer(given, head)
        _expect_layer(found, _HEADS)
        if not _same(given, layer):
            raise Mistake("the layer you were given has changed. Work on a copy: copy.deepcopy.")
        rows = torch.arange(_D_MODEL) // _D_HEAD == head
        out, q, v = layer.out_proj.weight, layer.q_proj.weight, layer.v_proj.weight
        if _same(found, _with(layer, out_proj__weight=out.where(~rows, 0))):
            continue
        bias = layer.out_proj.bias
        mistakes = {
            "nothing has changed.": layer,
            "you have zeroed rows of out_proj.weight, which are numbers of the output. The heads "
            "are its columns.": _with(layer, out_proj__weight=out.where(~rows[:, None], 0)),
            "the values of the head still have their bias.": _with(
                layer, v_proj__weight=v.where(~rows[:, None], 0)
            ),
            "without queries a head looks at all letters alike, which is not nothing.": _with(
                layer,
                q_proj__weight=q.where(~rows[:, None], 0),
                q_proj__bias=layer.q_proj.bias.where(~rows, 0),
            ),
            "the bias of out_proj belongs to no head. Leave it.": _with(
                layer, out_proj__weight=out.where(~rows, 0), out_proj__bias=bias.where(~rows, 0)
            ),
            f"that is one column. A head has {_D_HEAD} of them.": _with(
                layer, out_proj__weight=out.where(torch.arange(_D_MODEL) != head, 0)
            ),
        }
        for hint, wrong in mistakes.items():
            if _same(found, wrong):
                raise Mistake(hint)
        raise Mistake(f"without head {head}, the output should be the sum of the other heads.")


@exercise
def reordered(answer):
    """Check a function from a layer and an order to the same layer, its heads in that order."""
    layer, given = _layer(), _layer()
    found = answer(given, list(_ORDER))
    _expect_layer(found, _HEADS)
    if not _same(given, layer):
        raise Mistake("the layer you were given has changed. Work on a copy: copy.deepcopy.")
    before, after = _weights(layer), _weights(found)
    if not torch.allclose(after, before[:, _ORDER], atol=1e-4):
        inverse = [_ORDER.index(i) for i in range(_HEADS)]
        if torch.allclose(after, before, atol=1e-4):
            raise Mistake("every head is still in its old place. Move rows of q_proj and k_proj.")
        if torch.allclose(after, before[:, inverse], atol=1e-4):
            raise Mistake("the other way around: head i of the new layer is head order[i].")
        raise Mistake(
            "these are not the heads of the old layer. A head is a block of d_head rows in q_proj "
            "and in k_proj, of the weight and of the bias alike."
        )
    if not _same(found, layer):
        raise Mistake(
            "the heads look where they should, but the output has changed. Values and the columns "
            "of out_proj have to move with them."
        )


@exercise
def merge(answer):
    """Check a function that makes one `MultiHeadAttention` of `SeparateHeads`."""
    layer = _layer()
    parts = SeparateHeads.split(layer)
    found = answer(parts)
    _expect_layer(found, _HEADS)
    if _same(found, layer):
        return
    rows = torch.arange(_D_MODEL).reshape(_HEADS, _D_HEAD).T.flatten()
    plain = {f"{name}__bias": torch.zeros(_D_MODEL) for name in _PROJECTIONS}
    interleaved = {
        f"{name}__{kind}": layer.get_parameter(f"{name}.{kind}").data[rows]
        for name in _PROJECTIONS
        for kind in ("weight", "bias")
    }
    if torch.allclose(_weights(found), _weights(layer), atol=1e-4):
        raise Mistake("the heads look where they should. Check v_proj and out_proj.")
    if _same(found, _with(layer, **interleaved)):
        raise Mistake("the rows are interleaved. All rows of head 0 come first, then head 1.")
    projected = copy.deepcopy(found)
    for name in _PROJECTIONS:
        projected.get_parameter(f"{name}.bias").data.zero_()
    if _same(projected, _with(layer, **plain)):
        raise Mistake("the weights are right, the biases of q_proj, k_proj or v_proj are not.")
    raise Mistake(
        "the heads are not the old ones. Row i * d_head of q_proj should be row 0 of head i."
    )
