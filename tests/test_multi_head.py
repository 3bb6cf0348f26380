import math

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from transformer_lit.multi_head import MultiHeadAttention, SeparateHeads
from transformer_lit.relative_positions import ALiBi, RelativePosition, RoPE, Shaw

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SEQ, HEADS, D_HEAD = 2, 7, 3, 5
D_MODEL = HEADS * D_HEAD
LAYERS = ["explicit", "fused", "separate"]


def whole() -> MultiHeadAttention:
    return MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)


def vectors(**options) -> torch.Tensor:
    return torch.randn(BATCH, SEQ, D_MODEL, **options)


def run(form, layer, x, mask=None):
    """The output of ``layer`` in one of its forms, the last with its projections cut in pieces."""
    if form == "separate":
        return SeparateHeads.split(layer)(x, mask=mask)
    return layer(x, mask=mask, need_weights=form == "explicit")[0]


def some_mask(*shape):
    """Random, but every query may attend to its first key."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    return mask


def pytorch_layer(ours: MultiHeadAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True)
    projections = ours.q_proj, ours.k_proj, ours.v_proj
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    return theirs


# ---- hand-computed values


@pytest.mark.parametrize("form", LAYERS)
def test_two_heads_by_hand(form):
    """Head 0 looks with weights 3/4 and 1/4; head 1, whose queries are zero, at both alike."""
    layer = MultiHeadAttention(d_model=2, n_heads=2)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.q_proj.bias[0] = 1.0
        layer.k_proj.weight[0, 0] = math.log(3)
        layer.v_proj.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 8.0]]))
        layer.out_proj.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 10.0]]))
        layer.out_proj.bias.copy_(torch.tensor([0.0, 5.0]))
    # keys of head 0: log 3 and 0; its values: 4 and 0. Values of head 1: 0 and 8.
    # head 0 mixes to 3/4 * 4 = 3, head 1 to 1/2 * 8 = 4; out: 3 + 4 and 10 * 4 + 5.
    output = run(form, layer, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert_close(output, torch.tensor([[[7.0, 45.0], [7.0, 45.0]]]))


class Known(RelativePosition):
    """Three hooks with known numbers, the last only where ``needs_weights`` says so."""

    def __init__(self, needs_weights):
        super().__init__()
        self.needs_weights = needs_weights

    def rotate(self, q, k):
        return q + 1, k

    def bias(self, q, k):
        return torch.tensor([[[[0.0, math.log(3)]]]])

    def extra(self, weights):
        return 100 * weights[..., :1] if self.needs_weights else None


@pytest.mark.parametrize("asked", [{}, {"need_weights": True}])
@pytest.mark.parametrize(("needs_weights", "expected"), [(False, 19.0), (True, 29.0)])
def test_what_a_position_does_by_hand(asked, needs_weights, expected):
    layer = MultiHeadAttention(d_model=1, n_heads=1, position=Known(needs_weights))
    q, k, v = torch.zeros(2), torch.tensor([0.0, math.log(3)]), torch.tensor([10.0, 20.0])
    output, weights = layer.attend(*(x[None, None, :, None] for x in (q, k, v)), **asked)
    # scores: 0 and log 3 + log 3; weights: 1/10 and 9/10; mixture: 1 + 18; extra: 100 / 10
    assert_close(output, torch.full((1, 2, 1), expected))
    if asked:
        assert_close(weights, torch.tensor([0.1, 0.9]).expand(1, 1, 2, 2))
    else:
        assert weights is None


@pytest.mark.parametrize("n_heads", [1, 3, 5, 15])
def test_the_number_of_heads_changes_no_parameter_count(n_heads):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=n_heads)
    counted = sum(p.numel() for p in layer.parameters())
    assert counted == 4 * (D_MODEL * D_MODEL + D_MODEL)
    assert counted == sum(p.numel() for p in SeparateHeads.split(layer).parameters())


def test_parameters_of_heads_of_any_width():
    layer = SeparateHeads(d_model=11, n_heads=3, d_head=7)
    assert sum(p.numel() for p in layer.parameters()) == 3 * 3 * (11 * 7 + 7) + 21 * 11 + 11
    assert layer(torch.randn(BATCH, SEQ, 11)).shape == (BATCH, SEQ, 11)


# ---- properties


def test_each_head_has_rows_of_weights_that_sum_to_one():
    output, weights = whole()(vectors(), need_weights=True)
    assert output.shape == (BATCH, SEQ, D_MODEL)
    assert weights.shape == (BATCH, HEADS, SEQ, SEQ) and (weights > 0).all()
    assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, SEQ))
    assert (weights[:, 0] - weights[:, 1]).abs().max() > 1e-2


def test_weights_are_returned_only_when_asked_for():
    assert whole()(vectors())[1] is None


@pytest.mark.parametrize("form", LAYERS)
def test_reordered_inputs_give_reordered_outputs(form):
    layer, x, order = whole(), vectors(), torch.randperm(SEQ)
    assert_close(run(form, layer, x[:, order]), run(form, layer, x)[:, order])


@pytest.mark.parametrize("form", LAYERS)
def test_a_position_that_is_masked_changes_nothing_to_the_bit(form):
    layer, x = whole(), vectors()
    mask = torch.ones(1, 1, 1, SEQ, dtype=torch.bool)
    mask[..., 3] = False
    before, others = run(form, layer, x, mask), [0, 1, 2, 4, 5, 6]
    x[:, 3] = 1e3
    assert torch.equal(run(form, layer, x, mask)[:, others], before[:, others])
    assert not torch.equal(run(form, layer, x)[:, others], before[:, others])


@pytest.mark.parametrize("form", LAYERS)
def test_the_future_does_not_change_the_past_under_a_causal_mask(form):
    layer, x = whole(), vectors()
    mask = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()[None, None]
    before = run(form, layer, x, mask)
    x[:, 4:] += 1
    after = run(form, layer, x, mask)
    assert torch.equal(after[:, :4], before[:, :4])
    assert ((after - before)[:, 4:].abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("form", LAYERS)
def test_padding_that_is_masked_changes_nothing(form):
    layer, x = whole(), vectors()
    padded = torch.cat([x, torch.randn(BATCH, 4, D_MODEL)], 1)
    mask = (torch.arange(SEQ + 4) < SEQ)[None, None, None]
    assert_close(run(form, layer, padded, mask)[:, :SEQ], run(form, layer, x))


@pytest.mark.parametrize("form", LAYERS)
def test_each_head_obeys_its_own_mask(form):
    """Only head 1 may see position 6, and only its columns of out_proj carry the change."""
    layer, x = whole(), vectors()
    mask = torch.ones(1, HEADS, 1, SEQ, dtype=torch.bool)
    mask[:, [0, 2], :, 6] = False
    with torch.no_grad():
        layer.out_proj.weight.copy_(torch.eye(D_MODEL))
    before = run(form, layer, x, mask)[:, :6].unflatten(-1, (HEADS, D_HEAD))
    x[:, 6] += 1
    after = run(form, layer, x, mask)[:, :6].unflatten(-1, (HEADS, D_HEAD))
    assert torch.equal(after[:, :, [0, 2]], before[:, :, [0, 2]])
    assert (after - before)[:, :, 1].abs().max() > 1e-3


def test_the_order_of_the_heads_is_arbitrary():
    layer, x, order = SeparateHeads.split(whole()), vectors(), [2, 0, 1]
    expected = layer(x)
    layer.heads = nn.ModuleList(layer.heads[i] for i in order)
    with torch.no_grad():
        columns = layer.out_proj.weight.unflatten(1, (HEADS, D_HEAD))[:, order].flatten(1)
        layer.out_proj.weight.copy_(columns)
    assert_close(layer(x), expected)


# ---- agreement: a loop, the other form, PyTorch's own


@pytest.mark.parametrize("form", LAYERS)
def test_agrees_with_a_loop_over_heads(form):
    layer, x, mask = whole(), vectors(), some_mask(BATCH, HEADS, SEQ, SEQ)
    expected = layer.out_proj.bias.expand(BATCH, SEQ, D_MODEL).clone()
    for h in range(HEADS):
        rows = slice(h * D_HEAD, (h + 1) * D_HEAD)
        q, k, v = (
            x @ p.weight[rows].T + p.bias[rows] for p in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(D_HEAD)
        weights = scores.masked_fill(~mask[:, h], -torch.inf).softmax(-1)
        expected += weights @ v @ layer.out_proj.weight[:, rows].T
    assert_close(run(form, layer, x, mask), expected)


@pytest.mark.parametrize("n_heads", [1, 3, 5, 15])
def test_split_is_the_same_function_with_the_same_gradients(n_heads):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=n_heads)
    parts = SeparateHeads.split(layer)
    x, mask = vectors(), some_mask(BATCH, 1, SEQ, SEQ)
    assert_close(parts(x, mask=mask), layer(x, mask=mask)[0])
    layer(x, mask=mask)[0].square().sum().backward()
    parts(x, mask=mask).square().sum().backward()
    for name in ("q_proj", "k_proj", "v_proj"):
        pieces = [head.get_submodule(name).weight.grad for head in parts.heads]
        assert_close(torch.cat(pieces), layer.get_submodule(name).weight.grad)


def test_split_is_a_copy_of_the_same_dtype():
    layer, x = whole().double(), vectors(dtype=torch.float64)
    parts = SeparateHeads.split(layer)
    expected = layer(x)[0]
    with torch.no_grad():
        layer.v_proj.weight.zero_()
    assert_close(parts(x), expected)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_agrees_with_pytorch(need_weights, masked):
    ours, x = whole(), vectors()
    theirs = pytorch_layer(ours)
    mask = some_mask(BATCH, HEADS, SEQ, SEQ) if masked else None
    forbidden = ~mask.flatten(0, 1) if masked else None  # there, True forbids
    expected, expected_weights = theirs(
        x, x, x, attn_mask=forbidden, average_attn_weights=False, need_weights=need_weights
    )
    output, weights = ours(x, mask=mask, need_weights=need_weights)
    assert_close(output, expected)
    if need_weights:
        assert_close(weights, expected_weights)


@pytest.mark.parametrize("form", LAYERS)
def test_agrees_with_pytorch_on_padding(form):
    ours, x = whole(), vectors()
    real = torch.arange(SEQ) < torch.tensor([[SEQ], [4]])
    expected, _ = pytorch_layer(ours)(x, x, x, key_padding_mask=~real)
    assert_close(run(form, ours, x, real[:, None, None]), expected)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attending_to_other_vectors_agrees_with_pytorch(need_weights):
    ours, x, others = whole(), vectors(), torch.randn(BATCH, 11, D_MODEL)
    mask = some_mask(BATCH, 1, 1, 11)
    expected = pytorch_layer(ours)(
        x, others, others, key_padding_mask=~mask[:, 0, 0], average_attn_weights=False
    )
    output, weights = ours(
        x, mask=mask, need_weights=need_weights, keys_values=ours.keys_values(others)
    )
    assert_close(output, expected[0])
    if need_weights:
        assert_close(weights, expected[1])


def test_its_own_keys_and_values_handed_in_change_nothing():
    layer, x = whole(), vectors()
    assert torch.equal(layer(x, keys_values=layer.keys_values(x))[0], layer(x)[0])


# ---- gradients


@pytest.mark.parametrize("form", LAYERS)
def test_gradients_are_those_of_finite_differences(form):
    layer = whole().double()
    x, mask = vectors(dtype=torch.float64, requires_grad=True), some_mask(1, HEADS, SEQ, SEQ)
    assert gradcheck(lambda x: run(form, layer, x, mask), x)


@pytest.mark.parametrize("separate", [True, False])
def test_every_parameter_gets_a_gradient(separate):
    layer = SeparateHeads.split(whole()) if separate else whole()
    output = layer(vectors()) if separate else layer(vectors())[0]
    output.square().sum().backward()
    for name, parameter in layer.named_parameters():
        if name.endswith("k_proj.bias"):  # moves all scores of a query alike: nothing changes
            assert parameter.grad.abs().max() < 1e-4
        else:
            assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("form", LAYERS)
def test_a_query_with_nothing_to_attend_to_gets_the_bias_and_finite_gradients(form):
    layer, x = whole(), vectors(requires_grad=True)
    mask = torch.ones(BATCH, 1, SEQ, SEQ, dtype=torch.bool)
    mask[0, :, 2] = False
    output = run(form, layer, x, mask)
    assert_close(output[0, 2], layer.out_proj.bias, rtol=0, atol=0)
    assert (output - layer.out_proj.bias).abs().amax(-1).flatten().sort().values[1] > 1e-3
    output.square().sum().backward()
    assert x.grad.isfinite().all() and (x.grad.abs().amax(-1) > 1e-4).all()
    if form != "separate":
        assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("form", LAYERS)
def test_one_head_with_nothing_to_attend_to_adds_nothing(form):
    layer, x = whole(), vectors()
    mask = torch.ones(1, HEADS, 1, 1, dtype=torch.bool)
    mask[:, 1] = False
    output = run(form, layer, x, mask)
    with torch.no_grad():
        layer.out_proj.weight[:, D_HEAD : 2 * D_HEAD] = 0
    assert_close(output, run(form, layer, x))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("position", [None, "RoPE", "ALiBi", "Shaw"])
def test_causal_is_a_mask_of_the_past(need_weights, padded, position):
    position = {
        None: lambda: None,
        "RoPE": lambda: RoPE(d_head=4, layout="interleaved"),
        "ALiBi": lambda: ALiBi(n_heads=HEADS),
        "Shaw": lambda: Shaw(d_head=4, clip=2),
    }[position]()
    layer = MultiHeadAttention(d_model=4 * HEADS, n_heads=HEADS, position=position)
    x = torch.randn(BATCH, SEQ, 4 * HEADS)
    past = torch.ones(1, 1, SEQ, SEQ, dtype=torch.bool).tril()
    mask = (torch.arange(SEQ) < torch.tensor([[SEQ], [3]]))[:, None, None] if padded else None
    output, weights = layer(x, mask=mask, causal=True, need_weights=need_weights)
    joined = past if mask is None else past & mask
    expected, expected_weights = layer(x, mask=joined, need_weights=need_weights)
    assert_close(output, expected)
    if need_weights:
        assert_close(weights, expected_weights)
        assert not weights[~past.expand_as(weights)].any()


# ---- bad input


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("masked", [False, True])
def test_nan_in_the_input_is_not_hidden(form, masked):
    """It reaches all of its own sequence, masked or not (0 * NaN is NaN), and no other one."""
    x = vectors()
    x[1, 3, 2] = torch.nan
    mask = (torch.arange(SEQ) != 3)[None, None, None] if masked else None
    output = run(form, whole(), x, mask)
    assert output[1].isnan().all() and output[0].isfinite().all()


@pytest.mark.parametrize(("d_model", "n_heads"), [(15, 2), (15, 0), (15, -3), (0, 1), (3, 15)])
def test_heads_that_cannot_share_the_width_are_refused(d_model, n_heads):
    expected = f"at least 1 and divide d_model, got {n_heads} heads for a width of {d_model}"
    with pytest.raises(ValueError, match=expected):
        MultiHeadAttention(d_model=d_model, n_heads=n_heads)


@pytest.mark.parametrize("sizes", [(0, 3, 5), (15, 0, 5), (15, 3, -1)])
def test_separate_heads_of_no_size_are_refused(sizes):
    d_model, n_heads, d_head = sizes
    expected = f"must be at least 1, got {d_model}, {n_heads} and {d_head}"
    with pytest.raises(ValueError, match=expected):
        SeparateHeads(d_model=d_model, n_heads=n_heads, d_head=d_head)


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize(
    "shape",
    [
        (0, SEQ, D_MODEL),  # an empty batch
        (BATCH, 0, D_MODEL),  # empty words
        (BATCH, SEQ, D_MODEL - 1),
        (BATCH, SEQ, D_HEAD),
        (SEQ, D_MODEL),
        (BATCH, HEADS, SEQ, D_MODEL),
    ],
)
def test_empty_or_misfitting_vectors_are_refused(form, shape, unchecked_shapes):
    with pytest.raises(ValueError) as raised:
        run(form, whole(), torch.zeros(shape))
    assert str(raised.value) == f"x must be (batch, seq, 15) and not empty, got shape {shape}"


def test_other_vectors_that_do_not_fit_are_refused(unchecked_shapes):
    layer = whole()
    with pytest.raises(ValueError, match=r"x must be \(batch, seq, 15\) and not empty"):
        layer.keys_values(torch.zeros(BATCH, SEQ, D_MODEL + 1))
    keys, values = layer.keys_values(torch.randn(BATCH, SEQ, D_MODEL))
    with pytest.raises(ValueError, match="there are 7 keys and 6 values"):
        layer(vectors(), keys_values=(keys, values[:, :, :-1]))
    with pytest.raises(ValueError, match="leading axes must agree"):
        layer(vectors(), keys_values=(keys[:1], values[:1]))


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_a_mask_that_is_not_boolean_is_refused(form, dtype, unchecked_shapes):
    mask = torch.ones(BATCH, 1, SEQ, SEQ, dtype=dtype)
    with pytest.raises(ValueError, match=f"torch.bool with True = may attend, got {dtype}"):
        run(form, whole(), vectors(), mask)


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize(
    "shape",
    [
        (BATCH, SEQ),  # padding, of which axes? not said, so not guessed
        (SEQ, SEQ),
        (BATCH, SEQ, SEQ),  # with as many sequences as heads it would be taken for theirs
        (HEADS, SEQ, SEQ),
        (BATCH + 1, 1, SEQ, SEQ),
        (BATCH, HEADS + 1, SEQ, SEQ),
        (BATCH, 1, SEQ, SEQ - 1),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(form, shape):
    with pytest.raises(ValueError) as raised:
        run(form, whole(), vectors(), torch.ones(shape, dtype=torch.bool))
    expected = f"mask of shape {shape} does not fit scores of shape (2, 3, 7, 7)"
    assert expected in str(raised.value)
    assert "padding of shape (batch, key) becomes" in str(raised.value)


@pytest.mark.parametrize("form", LAYERS)
def test_a_mask_per_sequence_is_refused_where_it_could_be_one_per_head(form):
    """As many sequences as heads: (3, seq, seq) broadcasts as one mask per head, without a word."""
    x, mask = torch.randn(HEADS, SEQ, D_MODEL), some_mask(HEADS, SEQ, SEQ)
    with pytest.raises(ValueError, match=r"mask of shape \(3, 7, 7\) does not fit"):
        run(form, whole(), x, mask)


# ---- deliberately broken variants are caught


def broken(layer, x, mask, *, cut, scale=D_HEAD, join="b h s d -> b s (h d)"):
    q, k, v = (cut(proj(x)) for proj in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = q @ k.transpose(-2, -1) / math.sqrt(scale)
    heads = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    return layer.out_proj(rearrange(heads, join, b=BATCH, s=SEQ))


def right_cut(y):
    return rearrange(y, "b s (h d) -> b h s d", h=HEADS)


@pytest.mark.parametrize(
    "mistake",
    [
        dict(cut=lambda y: y.reshape(BATCH, HEADS, SEQ, D_HEAD)),  # no transpose
        dict(cut=lambda y: rearrange(y, "b s (d h) -> b h s d", h=HEADS)),  # interleaved
        dict(cut=right_cut, scale=D_MODEL),  # the scale of the whole width
        dict(cut=right_cut, join="b h s d -> b s (d h)"),
    ],
)
def test_a_broken_variant_disagrees_with_pytorch(mistake):
    layer, x, mask = whole(), vectors(), some_mask(BATCH, 1, SEQ, SEQ)
    with torch.no_grad():  # larger scores, so that a wrong scale shows
        layer.q_proj.weight.mul_(3)
    forbidden = ~mask.expand(-1, HEADS, -1, -1).flatten(0, 1)
    expected, _ = pytorch_layer(layer)(x, x, x, attn_mask=forbidden)
    assert_close(broken(layer, x, mask, cut=right_cut), expected)
    assert (broken(layer, x, mask, **mistake) - expected).abs().max() > 0.03
