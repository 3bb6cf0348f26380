import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from transformer_lit.attention import (
    AdditiveScores,
    SelfAttention,
    check_mask,
    dot_product_scores,
    explicit_attention,
    fused_attention,
    softmax_weights,
)

# Sizes are different primes: a swapped axis cannot fit.
BATCH, HEADS, QUERY, KEY, D_HEAD, D_VALUE, D_MODEL, D_HIDDEN = 2, 3, 5, 7, 11, 13, 17, 19
FORMS = ["explicit", "fused"]


def attend(form, q, k, v, mask=None, **more):
    if form == "fused":
        return fused_attention(q, k, v, mask, **more)
    return explicit_attention(q, k, v, mask, **more)[0]


def qkv(*leading, d_value=D_VALUE, **options):
    leading = leading or (BATCH,)
    return (
        torch.randn(*leading, QUERY, D_HEAD, **options),
        torch.randn(*leading, KEY, D_HEAD, **options),
        torch.randn(*leading, KEY, d_value, **options),
    )


def some_mask(*shape):
    """Random, but every query may attend to its first key."""
    mask = torch.rand(shape) < 0.5
    mask[..., 0] = True
    return mask


# ---- hand-computed values


def test_scores_by_hand():
    q, k = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 0, 0, 1], [0, -1, 1, 0]])
    assert dot_product_scores(q, k).tolist() == [[2.5, 0.5]]  # (1 + 4) / 2, (-2 + 3) / 2
    assert dot_product_scores(q, k, scale=1.0).tolist() == [[5.0, 1.0]]


def test_additive_scores_by_hand():
    scores = AdditiveScores(d_query=1, d_key=2, d_hidden=2)
    assert [tuple(p.shape) for p in scores.parameters()] == [(2, 1), (2, 2), (1, 2)]
    with torch.no_grad():
        scores.q_proj.weight.copy_(torch.tensor([[1.0], [0.0]]))
        scores.k_proj.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        scores.v.weight.copy_(torch.tensor([[3.0, 5.0]]))
    q, k = torch.tensor([[0.25]]), torch.tensor([[0.5, -1.0]])
    expected = 3 * math.tanh(0.25 - 1.0) + 5 * math.tanh(1.0)
    assert_close(scores(q, k), torch.tensor([[expected]]))


def test_weights_by_hand():
    """exp of a logarithm: 7, 2 and 1 of 10."""
    scores = torch.tensor([[7.0, 2.0, 1.0]]).log()
    assert_close(softmax_weights(scores), torch.tensor([[0.7, 0.2, 0.1]]))
    without_last = torch.tensor([[True, True, False]])
    assert_close(softmax_weights(scores, without_last), torch.tensor([[7 / 9, 2 / 9, 0]]))


@pytest.mark.parametrize("form", FORMS)
def test_attention_by_hand(form):
    """Scores (log 3) and 0 give weights 3/4 and 1/4."""
    q, k = torch.tensor([[[2 * math.log(3), 0, 0, 0]]]), torch.eye(4)[None, :2]
    v = torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    assert_close(attend(form, q, k, v), torch.tensor([[[3.0, 2.0]]]))


@pytest.mark.parametrize("need_weights", [True, False])
def test_one_place_of_width_one_gets_its_own_value(need_weights):
    layer, x = SelfAttention(d_model=1, d_head=1), torch.randn(BATCH, 1, 1)
    assert_close(layer(x, need_weights=need_weights)[0], layer.v_proj(x))


# ---- properties


def test_rows_of_weights_are_positive_and_sum_to_one():
    weights = explicit_attention(*qkv())[1]
    assert weights.shape == (BATCH, QUERY, KEY)
    assert (weights > 0).all()
    assert_close(weights.sum(-1), torch.ones(BATCH, QUERY))


def test_huge_scores_do_not_overflow():
    scores = torch.tensor([[1e4, 0.0], [-1e4, -1e4]])
    assert softmax_weights(scores).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_scores_have_variance_one_at_any_width():
    for d in (3, 1009):
        scores = dot_product_scores(torch.randn(199, d), torch.randn(211, d))
        assert scores.var().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_key_changes_nothing_to_the_bit(form):
    q, k, v = qkv()
    mask = torch.ones(BATCH, QUERY, KEY, dtype=torch.bool)
    mask[..., 3] = False
    before = attend(form, q, k, v, mask)
    k[:, 3], v[:, 3] = 1e3, -1e3
    assert torch.equal(attend(form, q, k, v, mask), before)
    assert not torch.equal(attend(form, q, k, v), before)


@pytest.mark.parametrize("form", FORMS)
def test_reordering_the_keys_with_their_values_changes_nothing(form):
    (q, k, v), order = qkv(), torch.randperm(KEY)
    assert_close(attend(form, q, k[:, order], v[:, order]), attend(form, q, k, v))
    assert not torch.allclose(attend(form, q, k[:, order], v), attend(form, q, k, v))


@pytest.mark.parametrize("need_weights", [True, False])
def test_reordered_inputs_give_reordered_outputs(need_weights):
    layer = SelfAttention(d_model=D_MODEL, d_head=D_HEAD)
    x, order = torch.randn(BATCH, QUERY, D_MODEL), torch.randperm(QUERY)
    moved = layer(x[:, order], need_weights=need_weights)[0]
    assert_close(moved, layer(x, need_weights=need_weights)[0][:, order])


@pytest.mark.parametrize("need_weights", [True, False])
def test_padding_that_is_masked_changes_nothing(need_weights):
    layer = SelfAttention(d_model=D_MODEL, d_head=D_HEAD)
    x = torch.randn(BATCH, QUERY, D_MODEL)
    padded = torch.cat([x, torch.randn(BATCH, 3, D_MODEL)], 1)
    mask = (torch.arange(QUERY + 3) < QUERY).expand(BATCH, 1, -1)
    seen = layer(padded, mask=mask, need_weights=need_weights)[0][:, :QUERY]
    assert_close(seen, layer(x, need_weights=need_weights)[0])


def test_weights_are_returned_only_when_asked_for():
    layer, x = SelfAttention(d_model=D_MODEL, d_head=D_HEAD), torch.randn(BATCH, QUERY, D_MODEL)
    assert layer(x)[1] is None
    output, weights = layer(x, need_weights=True)
    assert output.shape == (BATCH, QUERY, D_HEAD) and weights.shape == (BATCH, QUERY, QUERY)


def test_other_weights_can_be_handed_in():
    q, k, v = qkv()

    def first_key_only(scores, mask):
        return F.one_hot(torch.zeros(BATCH, QUERY, dtype=torch.long), KEY).float()

    output, _ = explicit_attention(q, k, v, weigh=first_key_only)
    assert_close(output, v[:, :1].expand(-1, QUERY, -1))


# ---- agreement: the loop, the two forms, PyTorch's own


@pytest.mark.parametrize("form", FORMS)
def test_agrees_with_a_loop(form):
    (q, k, v), mask = qkv(), some_mask(BATCH, QUERY, KEY)
    expected = torch.zeros(BATCH, QUERY, D_VALUE)
    for b in range(BATCH):
        for i in range(QUERY):
            allowed = [j for j in range(KEY) if mask[b, i, j]]
            exps = [math.exp(float(q[b, i] @ k[b, j]) / math.sqrt(D_HEAD)) for j in allowed]
            for e, j in zip(exps, allowed, strict=True):
                expected[b, i] += e / sum(exps) * v[b, j]
    assert_close(attend(form, q, k, v, mask), expected)


@pytest.mark.parametrize("leading", [(BATCH,), (BATCH, HEADS), (1, BATCH, HEADS)])
@pytest.mark.parametrize("d_value", [D_HEAD, D_VALUE])  # the kernel for equal widths, and without
@pytest.mark.parametrize("masked", [False, True])
def test_explicit_and_fused_agree_forward_and_backward(leading, d_value, masked):
    inputs = qkv(*leading, d_value=d_value)
    mask = some_mask(*leading, QUERY, KEY) if masked else None
    if masked:
        mask[..., 2, :] = False
    results = []
    for form in FORMS:
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = attend(form, *leaves, mask)
        output.square().sum().backward()
        results.append([output, *(x.grad for x in leaves)])
    assert_close(*results)


@pytest.mark.parametrize(
    "shape", [(1, 1, KEY), (BATCH, 1, KEY), (1, QUERY, KEY), (BATCH, QUERY, 1)]
)
def test_a_mask_with_axes_of_one_is_the_same_mask_written_out(shape):
    (q, k, v), mask = qkv(), some_mask(*shape)
    whole = mask.expand(BATCH, QUERY, KEY)
    for form in FORMS:
        assert_close(attend(form, q, k, v, mask), attend(form, q, k, v, whole))


def test_without_leading_axes_the_two_forms_agree():
    q, k, v = (x[0] for x in qkv())
    mask = some_mask(QUERY, KEY)
    assert_close(fused_attention(q, k, v, mask), explicit_attention(q, k, v, mask)[0])


@pytest.mark.parametrize("leading", [(BATCH,), (BATCH, HEADS)])
def test_the_fused_form_never_keeps_the_weights(leading):
    n = 101
    q, k, v = torch.randn(3, *leading, n, D_HEAD, requires_grad=True)
    for attend, stored in ((fused_attention, False), (explicit_attention, True)):
        kept = []

        def keep(x, kept=kept):
            kept.append(x.shape)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            attend(q, k, v)
        assert any(shape[-2:] == (n, n) for shape in kept) is stored


def test_agrees_with_scaled_dot_product_attention():
    (q, k, v), mask = qkv(), some_mask(BATCH, QUERY, KEY)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(explicit_attention(q, k, v, mask)[0], expected)


def test_agrees_with_multihead_attention_of_one_head():
    ours = SelfAttention(d_model=D_MODEL, d_head=D_MODEL)
    theirs = nn.MultiheadAttention(D_MODEL, 1, batch_first=True)
    projections = ours.q_proj, ours.k_proj, ours.v_proj
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.out_proj.weight.copy_(torch.eye(D_MODEL))
        theirs.out_proj.bias.zero_()
    x, mask = torch.randn(BATCH, QUERY, D_MODEL), some_mask(BATCH, QUERY, QUERY)
    expected, expected_weights = theirs(x, x, x, attn_mask=~mask)  # there, True forbids
    output, weights = ours(x, mask=mask, need_weights=True)
    assert_close(output, expected)
    assert_close(weights, expected_weights)


def test_additive_scores_agree_with_a_loop():
    layer = AdditiveScores(d_query=D_HEAD, d_key=D_VALUE, d_hidden=D_HIDDEN)
    q, k = torch.randn(BATCH, QUERY, D_HEAD), torch.randn(BATCH, KEY, D_VALUE)
    scores = layer(q, k)
    assert scores.shape == (BATCH, QUERY, KEY)
    for b in range(BATCH):
        for i in range(QUERY):
            for j in range(KEY):
                hidden = torch.tanh(layer.q_proj(q[b, i]) + layer.k_proj(k[b, j]))
                assert_close(scores[b, i, j], layer.v(hidden)[0])


# ---- gradients


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("d_value", [D_HEAD, D_VALUE])
def test_gradients_are_those_of_finite_differences(form, d_value):
    inputs = qkv(d_value=d_value, dtype=torch.float64, requires_grad=True)
    mask = some_mask(BATCH, QUERY, KEY)
    assert gradcheck(lambda q, k, v: attend(form, q, k, v, mask), inputs)


@pytest.mark.parametrize("need_weights", [True, False])
def test_every_parameter_gets_a_gradient(need_weights):
    layer = SelfAttention(d_model=D_MODEL, d_head=D_HEAD)
    output, _ = layer(torch.randn(BATCH, QUERY, D_MODEL), need_weights=need_weights)
    output.square().sum().backward()
    for name, parameter in layer.named_parameters():
        if name == "k_proj.bias":  # moves all scores of a query alike: the softmax ignores it
            assert parameter.grad.abs().max() < 1e-5
        else:
            assert parameter.grad.abs().max() > 1e-4, name


def test_every_parameter_of_additive_scores_gets_a_gradient():
    layer = AdditiveScores(d_query=D_HEAD, d_key=D_HEAD, d_hidden=D_HIDDEN)
    q, k, v = qkv()
    (softmax_weights(layer(q, k)) @ v).square().sum().backward()
    assert all(p.grad.abs().max() > 1e-4 for p in layer.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("d_value", [D_HEAD, D_VALUE])
def test_a_query_with_nothing_to_attend_to_gets_zeros_and_finite_gradients(form, d_value):
    leaves = [x.requires_grad_() for x in qkv(d_value=d_value)]
    mask = torch.ones(BATCH, QUERY, KEY, dtype=torch.bool)
    mask[0, 2] = False
    output = attend(form, *leaves, mask)
    assert torch.equal(output[0, 2], torch.zeros(d_value))
    others = output.detach().clone()
    others[0, 2] = 1
    assert others.abs().sum(-1).min() > 0
    output.square().sum().backward()
    for x in leaves:
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0
    assert torch.equal(leaves[0].grad[0, 2], torch.zeros(D_HEAD))


@pytest.mark.parametrize("form", FORMS)
def test_nothing_at_all_to_attend_to_gives_zeros_and_zero_gradients(form):
    leaves = [x.requires_grad_() for x in qkv()]
    output = attend(form, *leaves, torch.zeros(1, 1, KEY, dtype=torch.bool))
    assert torch.equal(output, torch.zeros(BATCH, QUERY, D_VALUE))
    output.sum().backward()
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in leaves)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_layer_with_a_fully_padded_sequence_trains_on(need_weights):
    layer = SelfAttention(d_model=D_MODEL, d_head=D_HEAD)
    x = torch.randn(BATCH, QUERY, D_MODEL, requires_grad=True)
    mask = torch.tensor([True, False])[:, None, None].expand(BATCH, 1, QUERY)
    output, weights = layer(x, mask=mask, need_weights=need_weights)
    assert torch.equal(output[1], torch.zeros(QUERY, D_HEAD))
    if need_weights:
        assert torch.equal(weights[1], torch.zeros(QUERY, QUERY))
    output.square().sum().backward()
    assert x.grad.isfinite().all() and torch.equal(x.grad[1], torch.zeros(QUERY, D_MODEL))
    assert all(p.grad.isfinite().all() for p in layer.parameters())


# ---- looking back only


def past(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leading", [(), (BATCH,), (BATCH, HEADS)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_causal_is_a_mask_of_the_past(form, leading, masked, biased):
    q, k = torch.randn(2, *leading, KEY, D_HEAD)
    v = torch.randn(*leading, KEY, D_VALUE)
    shape = [1] * len(leading) + [KEY, KEY]
    mask = torch.rand(shape) < 0.5 if masked else None  # some queries have nothing to attend to
    bias = torch.randn(shape) if biased else None
    joined = past(KEY).view(shape) & (torch.ones(()).bool() if mask is None else mask)
    leaves = [[x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2)]
    output = attend(form, *leaves[0], mask, bias=bias, causal=True)
    expected = attend("explicit", *leaves[1], joined, bias=bias)
    assert_close(output, expected)
    above = torch.randn_like(output)
    for by_name, by_mask in zip(
        torch.autograd.grad(output, leaves[0], above),
        torch.autograd.grad(expected, leaves[1], above),
        strict=True,
    ):
        assert_close(by_name, by_mask)


def test_the_kernel_is_told_to_leave_out_the_future(monkeypatch):
    """Only so it does not compute what nobody may see; a mask would hide it afterwards."""
    told = []

    def kernel(q, k, v, added, *, is_causal):
        told.append((added, is_causal))
        return v

    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    x = torch.randn(BATCH, KEY, D_HEAD)
    fused_attention(x, x, x, causal=True)
    fused_attention(x, x, x, past(KEY)[None], causal=True)
    fused_attention(x, x, x, bias=torch.zeros(1, 1, 1), causal=True)
    assert told[0] == (None, True)
    assert all(added is not None and not causal for added, causal in told[1:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("n", "place"), [(1, 0), (3, 0), (3, 2), (700, 0), (700, 600)])
def test_nan_of_the_past_is_not_hidden(form, which, n, place):
    """It reaches every query that may attend to it, and no other head or sequence."""
    inputs = list(torch.randn(3, BATCH, HEADS, n, D_HEAD))
    inputs[which][0, 1, place] = torch.nan
    broken = attend(form, *inputs, causal=True).isnan().any(-1)
    reached = torch.arange(n) == place if which == 0 else torch.arange(n) >= place
    assert broken[0, 1, reached].all() and broken.sum() == broken[0, 1].sum()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_made_lies_where_the_input_lies(form, masked):
    """Also where new tensors are made elsewhere, as on a machine whose default is its GPU."""
    q, k, v = torch.randn(3, BATCH, KEY, D_HEAD)
    bias, mask = torch.zeros(1, 1, 1), some_mask(BATCH, KEY, KEY) if masked else None
    with torch.device("meta"):
        found = attend(form, q, k, v, mask, bias=bias, causal=True)
    assert_close(found, attend(form, q, k, v, mask, bias=bias, causal=True))


def test_large_numbers_that_attention_can_bear_stay_numbers():
    """Their sum overflows, their products do not."""
    q = torch.full((1, 1, KEY, D_HEAD), 3e38)
    k, v = torch.zeros_like(q), torch.randn_like(q)
    assert_close(attend("fused", q, k, v, causal=True), attend("explicit", q, k, v, causal=True))


@pytest.mark.parametrize("form", FORMS)
def test_causal_wants_a_key_for_each_query(form):
    with pytest.raises(ValueError, match="as many queries as keys, got 5 and 7: say in a mask"):
        attend(form, *qkv(), causal=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_given_as_causal_is_refused(form, unchecked_shapes):
    x = torch.randn(BATCH, KEY, D_HEAD)
    with pytest.raises(ValueError, match="causal must be True or False, got tensor"):
        attend(form, x, x, x, causal=past(KEY))


# ---- bad input


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("d_value", [D_HEAD, D_VALUE])
def test_nan_in_the_input_is_not_hidden(form, which, masked, d_value):
    """It reaches every query that may attend to it, and no other sequence of the batch."""
    inputs = list(qkv(d_value=d_value))
    place = 1, 3, 2
    inputs[which][place] = torch.nan
    output = attend(form, *inputs, some_mask(1, 1, KEY) | True if masked else None)
    assert not output[0].isnan().any()
    reached = output[1].isnan().any(-1)
    assert reached.tolist() == [which > 0 or i == 3 for i in range(QUERY)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 3, 37])
def test_nan_is_not_hidden_at_any_length(form, which, n):
    inputs = list(torch.randn(3, BATCH, HEADS, n, D_HEAD))
    inputs[which][0, 1, 0] = torch.nan
    broken = attend(form, *inputs).isnan().any(-1)
    assert broken[0, 1, 0] and broken.sum() == (1 if which == 0 else n)


@pytest.mark.parametrize("need_weights", [True, False])
def test_nan_in_padding_is_not_hidden_by_the_mask(need_weights):
    """Zero times NaN is NaN: fill padding with numbers."""
    layer, x = SelfAttention(d_model=D_MODEL, d_head=D_HEAD), torch.randn(BATCH, QUERY, D_MODEL)
    x[0, -1] = torch.nan
    mask = (torch.arange(QUERY) < QUERY - 1).expand(BATCH, 1, -1)
    output, _ = layer(x, mask=mask, need_weights=need_weights)
    assert output[0].isnan().all() and not output[1].isnan().any()


@pytest.mark.parametrize("form", FORMS)
def test_queries_and_keys_of_different_width_are_refused(form, unchecked_shapes):
    q, k, v = qkv()
    with pytest.raises(ValueError, match="queries are 10 wide, keys 11: they must agree"):
        attend(form, q[..., :10], k, v)
    with pytest.raises(ValueError, match="queries are 10 wide, keys 11: they must agree"):
        dot_product_scores(q[..., :10], k)


@pytest.mark.parametrize("form", FORMS)
def test_as_many_values_as_keys_are_needed(form, unchecked_shapes):
    q, k, v = qkv()
    with pytest.raises(ValueError, match="there are 7 keys and 6 values: they must agree"):
        attend(form, q, k, v[:, :6])


@pytest.mark.parametrize("form", FORMS)
def test_leading_axes_that_differ_are_refused_even_if_they_would_broadcast(form, unchecked_shapes):
    q, k, v = qkv()
    expected = r"leading axes must agree, got .*'queries': \(2,\), 'keys': \(1,\), 'values': \(2,\)"
    with pytest.raises(ValueError, match=expected):
        attend(form, q, k[:1], v)


@pytest.mark.parametrize("form", FORMS)
def test_dtypes_that_differ_are_refused(form):
    q, k, v = qkv()
    expected = "dtypes must agree, got queries torch.float64, keys torch.float32, values torch.fl"
    with pytest.raises(ValueError, match=expected):
        attend(form, q.double(), k, v)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("queries", (0, QUERY, D_HEAD)),
        ("queries", (BATCH, 0, D_HEAD)),
        ("keys", (BATCH, 0, D_HEAD)),
        ("values", (BATCH, KEY, 0)),
        ("queries", (D_HEAD,)),
    ],
)
def test_empty_input_is_refused(form, name, shape, unchecked_shapes):
    inputs = dict(zip(("queries", "keys", "values"), qkv(), strict=True))
    inputs[name] = torch.zeros(shape)
    expected = f"{name} must be (*batch, seq, width) and not empty, got shape {shape}"
    with pytest.raises(ValueError) as raised:
        attend(form, *inputs.values())
    assert str(raised.value) == expected


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(0, QUERY, D_MODEL), (BATCH, 0, D_MODEL), (BATCH, QUERY, D_MODEL + 1), (QUERY, D_MODEL)],
)
def test_a_layer_refuses_empty_input_and_other_widths(shape, need_weights, unchecked_shapes):
    layer = SelfAttention(d_model=D_MODEL, d_head=D_HEAD)
    with pytest.raises(ValueError) as raised:
        layer(torch.zeros(shape), need_weights=need_weights)
    assert str(raised.value) == (
        f"x must be (batch, seq, {D_MODEL}) and not empty, got shape {shape}"
    )


def test_additive_scores_refuse_other_widths_and_empty_input(unchecked_shapes):
    layer = AdditiveScores(d_query=D_HEAD, d_key=D_VALUE, d_hidden=D_HIDDEN)
    q, k = torch.randn(BATCH, QUERY, D_HEAD), torch.randn(BATCH, KEY, D_VALUE)
    with pytest.raises(ValueError, match=r"are \(13, 11\) wide, the layer expects \(11, 13\)"):
        layer(k, q)
    with pytest.raises(ValueError, match=r"leading axes must agree, got .*\(2,\).*\(1,\)"):
        layer(q, k[:1])
    with pytest.raises(ValueError, match=r"keys must be .* not empty, got shape \(2, 0, 13\)"):
        layer(q, k[:, :0])


def test_layers_of_no_width_are_refused():
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 11"):
        SelfAttention(d_model=0, d_head=D_HEAD)
    with pytest.raises(ValueError, match="must be at least 1, got 17 and -1"):
        SelfAttention(d_model=D_MODEL, d_head=-1)
    with pytest.raises(ValueError, match="must be at least 1, got 11, 13 and 0"):
        AdditiveScores(d_query=D_HEAD, d_key=D_VALUE, d_hidden=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_a_mask_that_is_not_boolean_is_refused(form, dtype, unchecked_shapes):
    mask = torch.ones(BATCH, QUERY, KEY, dtype=dtype)
    with pytest.raises(ValueError, match=f"torch.bool with True = may attend, got {dtype}"):
        attend(form, *qkv(), mask)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "shape",
    [
        (QUERY, KEY),  # which axis is missing? not said, so not guessed
        (BATCH, KEY),
        (KEY,),
        (BATCH, HEADS, QUERY, KEY),
        (BATCH, KEY, QUERY),
        (BATCH + 1, QUERY, KEY),
        (BATCH, QUERY, KEY - 1),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(form, shape):
    with pytest.raises(ValueError) as raised:
        attend(form, *qkv(), torch.ones(shape, dtype=torch.bool))
    assert f"mask of shape {shape} does not fit scores of shape (2, 5, 7)" in str(raised.value)
    assert "(batch, key) becomes (batch, 1, key)" in str(raised.value)


@pytest.mark.parametrize("need_weights", [True, False])
def test_padding_as_a_mask_is_refused_where_broadcasting_would_misread_it(need_weights):
    """With as many sequences as positions, (batch, key) fits (query, key), and PyTorch takes it."""
    n = 5
    layer, x = SelfAttention(d_model=D_MODEL, d_head=D_HEAD), torch.randn(n, n, D_MODEL)
    padding = some_mask(n, n)
    F.scaled_dot_product_attention(x, x, x, attn_mask=padding)  # no complaint, a wrong answer
    with pytest.raises(ValueError, match=r"mask of shape \(5, 5\) does not fit"):
        layer(x, mask=padding, need_weights=need_weights)


def test_check_mask_accepts_what_fits():
    for shape in [(BATCH, QUERY, KEY), (1, QUERY, KEY), (BATCH, 1, 1)]:
        check_mask(torch.ones(shape, dtype=torch.bool), (BATCH, QUERY, KEY))


# ---- deliberately broken variants are caught


def broken_scale(q, k, v, mask):
    return softmax_weights(dot_product_scores(q, k, scale=1.0), mask) @ v


def broken_polarity(q, k, v, mask):
    return explicit_attention(q, k, v, ~mask)[0]


def broken_axis(q, k, v, mask):
    scores = dot_product_scores(q, k).masked_fill(~mask, -torch.inf)
    return scores.softmax(-2).nan_to_num() @ v


def broken_mask_after_the_softmax(q, k, v, mask):
    return (softmax_weights(dot_product_scores(q, k)) * mask) @ v


@pytest.mark.parametrize(
    "broken", [broken_scale, broken_polarity, broken_axis, broken_mask_after_the_softmax]
)
def test_a_broken_variant_disagrees_with_pytorch(broken):
    (q, k, v), mask = qkv(), some_mask(BATCH, QUERY, KEY)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert (broken(q, k, v, mask) - expected).abs().max() > 0.05
