"""The checks of chapter 07, how far apart are we?"""

import copy
import math

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.relative_positions import RelativePosition, RoPE, offsets, slopes

_HEADS, _D_HEAD, _SEQ = 3, 10, 7
_D_MODEL = _HEADS * _D_HEAD


@exercise
def half_distance(answer):
    """Check a function from a slope to the steps after which ALiBi leaves half of a weight."""
    for slope in (1.0, 0.25, 2**-8):
        right, found = math.log(2) / slope, float(answer(slope))
        if math.isclose(found, right, rel_tol=1e-3):
            continue
        asked = f"for a slope of {slope:g}"
        if math.isclose(found, 1 / slope, rel_tol=1e-3):
            raise Mistake(f"{asked} that leaves 1 / e of the weight, not half of it.")
        if math.isclose(found, 0.5 / slope, rel_tol=1e-3):
            raise Mistake(f"{asked}: weights are the exponentials of scores, so halves do not add.")
        if math.isclose(found, math.log(2) * slope, rel_tol=1e-3):
            raise Mistake(f"{asked}: a steeper slope should need fewer steps. Divide by it.")
        if math.isclose(found, -right, rel_tol=1e-3):
            raise Mistake(f"{asked} the number is right, its sign is not: steps are counted back.")
        raise Mistake(f"{asked} it is {right:.3f} steps, got {found:.3f}.")


@exercise
def complex_score(answer):
    """Check a function from complex ``q``, ``k``, steps and angles to RoPE's score."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 5, dtype=torch.complex64, generator=generator)
    angles = 10_000.0 ** (-torch.arange(5) / 5)
    for steps in (0, 3, -4):
        turn = torch.polar(torch.ones(5), steps * angles)
        right, found = (q * k.conj() * turn).sum().real, answer(q, k, steps, angles)
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise Mistake("the score should be a tensor of one number: sum over the pairs.")
        if found.is_complex():
            raise Mistake("the score should be a real number, but yours is complex.")
        if torch.allclose(found, right, atol=1e-4):
            continue
        for hint, wrong in {
            "conjugate the key: without it the angles of query and key add up.": q * k * turn,
            "the key is turned the wrong way: steps is the query's place minus the key's.": q
            * k.conj()
            * turn.conj(),
            "the angles are missing, so this score is the same at all distances.": q * k.conj(),
        }.items():
            if torch.allclose(found, wrong.sum().real, atol=1e-4):
                raise Mistake(hint)
        raise Mistake(f"{steps} steps apart the score should be {right:.3f}, got {found:.3f}.")


@exercise
@torch.no_grad()
def other_layout(answer):
    """Check a function from a layer with interleaved RoPE to a half-split one that does the same.

    The layer is a ``MultiHeadAttention`` whose ``position`` is a ``RoPE``.
    """
    generator = torch.Generator().manual_seed(0)
    layer = MultiHeadAttention(
        d_model=_D_MODEL, n_heads=_HEADS, position=RoPE(d_head=_D_HEAD, layout="interleaved")
    )
    for parameter in layer.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    x = torch.randn(2, _SEQ, _D_MODEL, generator=generator)
    before = copy.deepcopy(layer)
    right, found = layer(x)[0], answer(layer)
    if not isinstance(found, MultiHeadAttention):
        raise Mistake(f"return a MultiHeadAttention, got {type(found).__name__}.")
    same = all(torch.equal(layer.state_dict()[k], v) for k, v in before.state_dict().items())
    if not same or layer.position.layout != "interleaved":
        raise Mistake("the layer that was given is changed. Work on a copy.")
    if not isinstance(found.position, RoPE) or found.position.layout != "half-split":
        raise Mistake("the new layer's position should be a RoPE whose layout is 'half-split'.")
    if torch.allclose(found(x)[0], right, atol=1e-4):
        return

    def kept(name):
        new, old = found.get_submodule(name), before.get_submodule(name)
        return torch.equal(new.weight, old.weight) and torch.equal(new.bias, old.bias)

    if kept("q_proj") and kept("k_proj"):
        raise Mistake("another layout needs other weights: reorder the rows of q_proj and k_proj.")
    if kept("q_proj") or kept("k_proj"):
        raise Mistake("queries and keys are compared number by number, so both need the new order.")
    if not kept("v_proj"):
        raise Mistake("the values are not turned. Leave v_proj as it is.")
    if torch.equal(found.q_proj.bias, before.q_proj.bias):
        raise Mistake("the biases belong to the same rows. Reorder them too.")
    if set(found.q_proj.bias[:_D_HEAD].tolist()) != set(before.q_proj.bias[:_D_HEAD].tolist()):
        raise Mistake(
            "numbers have moved from one head to another. Reorder within each head: the width to "
            "split is d_head, not d_model."
        )
    raise Mistake("the outputs differ. Row i of a projection makes number i of the query.")


@exercise
def logarithmic(answer):
    """Check a class, made with ``n_heads``, whose bias is minus slope times ln(1 + distance)."""
    position = answer(n_heads=_HEADS)
    if not isinstance(position, RelativePosition):
        raise Mistake("the class should be a RelativePosition.")
    q = torch.zeros(2, _HEADS, _SEQ, _D_HEAD)
    distance = offsets(_SEQ, _SEQ).abs()
    slope = slopes(_HEADS)[None, :, None, None]
    right, found = -slope * distance.log1p(), position.bias(q, q)
    if found is None or found is ...:
        if type(position).bias is RelativePosition.bias:
            raise Mistake("the hook to override is bias, which should return a tensor.")
        raise NotImplementedError
    if found.shape[-2:] != (_SEQ, _SEQ) or found.ndim != 4:
        raise Mistake(
            f"the bias should be (1, heads, query, key), here (1, {_HEADS}, {_SEQ}, {_SEQ}), "
            f"got {tuple(found.shape)}."
        )
    if found.isnan().any() or found.isinf().any():
        raise Mistake("some of the numbers are not finite: ln 0, or the logarithm of a minus.")
    if found.shape[1] == 1:
        raise Mistake("all heads have the same slope. Each has its own: slopes(n_heads).")
    if torch.allclose(found, right, atol=1e-5):
        return
    if torch.allclose(found, -right, atol=1e-5):
        raise Mistake("this raises the scores of far keys. It should lower them.")
    if torch.allclose(found, -slope * distance, atol=1e-5):
        raise Mistake("this is ALiBi itself: the logarithm is missing.")
    if torch.allclose(found.tril(), right.tril(), atol=1e-5):
        raise Mistake("keys behind the query should be lowered too: take the absolute distance.")
    raise Mistake(
        f"with {_HEADS} heads and two steps between query and key the first head's number should "
        f"be {right[0, 0, 2, 0]:.3f}, got {found[0, 0, 2, 0]:.3f}."
    )
