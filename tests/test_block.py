import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.masking import causal_mask, padding_mask
from transformer_lit.multi_head import MultiHeadAttention

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SEQ, HEADS, D_HEAD, D_FF = 2, 7, 3, 5, 17
D_MODEL = HEADS * D_HEAD

both_orders = pytest.mark.parametrize("norm_first", [True, False], ids=["pre", "post"])


def vectors(*shape, **options) -> torch.Tensor:
    return torch.randn(*(shape or (BATCH, SEQ, D_MODEL)), **options)


def some_norm(d_model: int = D_MODEL) -> LayerNorm:
    """A norm whose gain and bias are not those it starts from."""
    norm = LayerNorm(d_model=d_model)
    with torch.no_grad():
        norm.gain.copy_(torch.randn(d_model))
        norm.bias.copy_(torch.randn(d_model))
    return norm


def block(norm_first: bool, dropout: float = 0.0) -> Block:
    made = Block(
        attention=MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS),
        feed_forward=FeedForward(d_model=D_MODEL, d_ff=D_FF, dropout=dropout),
        d_model=D_MODEL,
        dropout=dropout,
        norm_first=norm_first,
    )
    made.attention_norm, made.feed_forward_norm = some_norm(), some_norm()
    return made


def pytorch_layer(ours: Block, dropout: float = 0.0) -> nn.TransformerEncoderLayer:
    theirs = nn.TransformerEncoderLayer(
        D_MODEL, HEADS, D_FF, dropout, batch_first=True, norm_first=ours.norm_first
    )
    attention, feed_forward = ours.attention, ours.feed_forward
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.self_attn.out_proj.load_state_dict(attention.out_proj.state_dict())
        theirs.linear1.load_state_dict(feed_forward.widen.state_dict())
        theirs.linear2.load_state_dict(feed_forward.narrow.state_dict())
        for norm, copied in (
            (theirs.norm1, ours.attention_norm),
            (theirs.norm2, ours.feed_forward_norm),
        ):
            norm.weight.copy_(copied.gain)
            norm.bias.copy_(copied.bias)
    return theirs


# ---- hand-computed values


def test_a_norm_by_hand():
    """Mean 3, squared distances 4, 0, 0, 4, so variance 2 and deviation 1.414."""
    x = torch.tensor([[1.0, 3.0, 3.0, 5.0]])
    expected = torch.tensor([[-math.sqrt(2), 0.0, 0.0, math.sqrt(2)]])
    assert_close(LayerNorm(d_model=4, eps=1e-12)(x), expected)


def test_eps_stands_under_the_root():
    """Variance 2 and eps 2 make a deviation of 2."""
    x = torch.tensor([[1.0, 3.0, 3.0, 5.0]])
    assert_close(LayerNorm(d_model=4, eps=2.0)(x), torch.tensor([[-1.0, 0.0, 0.0, 1.0]]))


def test_gain_multiplies_and_bias_is_added_after_it():
    norm = LayerNorm(d_model=2, eps=1e-12)
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([5.0, 7.0]))
    assert_close(norm(torch.tensor([[11.0, 13.0]])), torch.tensor([[3.0, 10.0]]))


def test_a_feed_forward_network_by_hand():
    """Hidden units relu(x - y) and relu(y - x); 3 times the first, minus the second, plus 1."""
    network = FeedForward(d_model=2, d_ff=2)
    with torch.no_grad():
        network.widen.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        network.widen.bias.zero_()
        network.narrow.weight.copy_(torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
        network.narrow.bias.copy_(torch.tensor([1.0, 2.0]))
    x = torch.tensor([[[5.0, 3.0], [3.0, 5.0]]])
    assert network(x).tolist() == [[[7.0, 2.0], [-1.0, 2.0]]]


def test_a_network_of_width_one_by_hand():
    """5 relu(2 x - 3) + 7."""
    network = FeedForward(d_model=1, d_ff=1)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), (2, -3, 5, 7), strict=True):
            parameter.fill_(value)
    assert network(torch.tensor([[[1.0], [2.0]]])).tolist() == [[[7.0], [12.0]]]


@both_orders
def test_a_block_by_hand(norm_first):
    """Parts that double: pre-norm gives x + 2 norm(x) twice, post-norm norm(3 x) twice."""

    class Double(nn.Module):
        def forward(self, x, mask=None, need_weights=False):
            return 2 * x, None

    network = FeedForward(d_model=2, d_ff=4)
    with torch.no_grad():  # relu(x) - relu(-x), doubled
        network.widen.weight.copy_(torch.cat([torch.eye(2), -torch.eye(2)]))
        network.narrow.weight.copy_(2 * network.widen.weight.T)
        network.widen.bias.zero_()
        network.narrow.bias.zero_()
    layer = Block(attention=Double(), feed_forward=network, d_model=2, norm_first=norm_first)
    expected = [[[-5.0, 13.0]]] if norm_first else [[[-1.0, 1.0]]]
    # [-1, 9] has mean 4 and deviation 5, so its norm is [-1, 1].
    output, _ = layer(torch.tensor([[[-1.0, 9.0]]]))
    assert_close(output, torch.tensor(expected), atol=1e-5, rtol=0)


# ---- properties


def test_each_vector_gets_mean_zero_and_variance_one():
    x = LayerNorm(d_model=D_MODEL)(5 + 3 * vectors())
    assert_close(x.mean(-1), torch.zeros(BATCH, SEQ), atol=1e-6, rtol=0)
    assert_close(x.square().mean(-1), torch.ones(BATCH, SEQ), atol=1e-4, rtol=0)


def test_a_norm_forgets_scale_and_shift():
    norm, x = some_norm(), vectors()
    assert_close(norm(7 * x + 11), norm(x), atol=1e-4, rtol=1e-4)
    assert_close(norm(-x) - norm.bias, norm.bias - norm(x))


def test_a_vector_of_equal_numbers_becomes_the_bias():
    norm = some_norm()
    assert_close(norm(torch.full((1, D_MODEL), 3.0)), norm.bias[None])


@pytest.mark.parametrize("make", [some_norm, lambda: FeedForward(d_model=D_MODEL, d_ff=D_FF)])
def test_a_place_is_worked_on_by_itself(make):
    """One place changes, the others stay; a loop over places gives what the batch gives."""
    layer, x = make(), vectors()
    before = layer(x)
    other = x.clone()
    other[1, 3] += 1
    moved = (layer(other) != before).any(-1)
    assert moved.nonzero().tolist() == [[1, 3]]
    assert_close(torch.stack([layer(x[:, i]) for i in range(SEQ)], dim=1), before)


@both_orders
def test_permuting_the_places_permutes_the_output(norm_first):
    layer, x, order = block(norm_first), vectors(), torch.randperm(SEQ)
    assert_close(layer(x[:, order])[0], layer(x)[0][:, order])


@both_orders
def test_changing_the_future_leaves_the_past_as_it_was(norm_first):
    layer, x = block(norm_first), vectors()
    before, _ = layer(x, mask=causal_mask(SEQ))
    x[:, 5:] += 1
    after, _ = layer(x, mask=causal_mask(SEQ))
    assert torch.equal(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().min(-1).values.max() > 1e-3


@both_orders
def test_padding_changes_nothing(norm_first):
    layer, x = block(norm_first), vectors()
    padded = torch.cat([x, vectors(BATCH, 4, D_MODEL)], dim=1)
    mask = padding_mask(torch.full((BATCH,), SEQ), SEQ + 4)
    assert_close(layer(padded, mask=mask)[0][:, :SEQ], layer(x)[0])


@both_orders
def test_weights_are_returned_only_when_asked_for(norm_first):
    layer, x = block(norm_first), vectors()
    output, nothing = layer(x)
    same, weights = layer(x, need_weights=True)
    assert nothing is None
    assert weights.shape == (BATCH, HEADS, SEQ, SEQ)
    assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, SEQ))
    assert_close(same, output)


def test_a_post_norm_block_ends_normalised_and_a_pre_norm_block_does_not():
    x = 100 * vectors()
    for norm_first in (True, False):
        layer = block(norm_first)
        layer.feed_forward_norm = LayerNorm(d_model=D_MODEL)
        sizes = layer(x)[0].square().mean(-1)
        assert bool((sizes > 1000).all() if norm_first else (sizes < 1.01).all())


@both_orders
def test_without_dropout_training_and_use_are_the_same(norm_first):
    layer, x = block(norm_first), vectors()
    assert torch.equal(layer.train()(x)[0], layer.eval()(x)[0])


@both_orders
def test_dropout_acts_in_training_only(norm_first):
    layer, x = block(norm_first, dropout=0.5), vectors()
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
    assert_close(layer(x)[0], block_without_dropout(layer)(x)[0])


def block_without_dropout(layer: Block) -> Block:
    other = block(layer.norm_first)
    other.load_state_dict(layer.state_dict())
    return other


def test_dropout_keeps_the_mean():
    """Both parts output ones, so a pre-norm block gives x plus 0, 2 or 4, and x + 2 on average."""
    layer = Block(
        attention=MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS),
        feed_forward=FeedForward(d_model=D_MODEL, d_ff=D_FF),
        d_model=D_MODEL,
        dropout=0.5,
    )
    with torch.no_grad():
        for last in (layer.attention.out_proj, layer.feed_forward.narrow):
            last.weight.zero_()
            last.bias.fill_(1)
        added, _ = layer(torch.zeros(1009, SEQ, D_MODEL))
    assert set(added.unique().tolist()) == {0.0, 2.0, 4.0}
    assert 1.97 < float(added.mean()) < 2.03


# ---- agreement with PyTorch


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("d_model", [1, 2, 3, 17, 512])
def test_agrees_with_the_norm_of_pytorch(d_model, eps):
    ours = some_norm(d_model)
    ours.eps = eps
    theirs = nn.LayerNorm(d_model, eps=eps)
    theirs.load_state_dict({"weight": ours.gain.data, "bias": ours.bias.data})
    x = vectors(BATCH, SEQ, d_model, dtype=torch.float64)
    assert_close(ours.double()(x), theirs.double()(x), atol=1e-12, rtol=1e-12)
    x = x.float()
    assert_close(ours.float()(x), theirs.float()(x), atol=5e-6, rtol=1e-5)


@both_orders
@pytest.mark.parametrize("masked", ["nothing", "padding", "future", "both"])
def test_agrees_with_the_layer_of_pytorch(norm_first, masked):
    ours = block(norm_first)
    theirs, x, lengths = pytorch_layer(ours), vectors(), torch.tensor([SEQ, SEQ - 3])
    padding, future = padding_mask(lengths, SEQ), causal_mask(SEQ)
    mask = {"nothing": None, "padding": padding, "future": future, "both": padding & future}[masked]
    # PyTorch's layer takes the inverse: True forbids.
    options = {
        "src_mask": ~future[0, 0] if masked in ("future", "both") else None,
        "src_key_padding_mask": ~padding[:, 0, 0] if masked in ("padding", "both") else None,
    }
    assert_close(ours(x, mask=mask)[0], theirs(x, **options), atol=1e-5, rtol=1e-5)


@both_orders
def test_dropout_stands_where_that_of_pytorch_does(norm_first):
    """Dropout is replaced by one that always drops the same features."""

    class DropLast(nn.Module):
        def forward(self, x):
            return torch.cat([2 * x[..., :-3], 0 * x[..., -3:]], dim=-1)

    ours, x = block(norm_first), vectors()
    theirs, undropped = pytorch_layer(ours), ours(x)[0]
    ours.dropout = ours.feed_forward.dropout = DropLast()
    theirs.dropout = theirs.dropout1 = theirs.dropout2 = DropLast()
    found, _ = ours(x)
    assert_close(found, theirs(x), atol=1e-5, rtol=1e-5)
    assert (found - undropped).abs().max() > 0.1


@both_orders
def test_gradients_agree_with_the_layer_of_pytorch(norm_first):
    ours, x = block(norm_first), vectors(requires_grad=True)
    theirs, cotangent = pytorch_layer(ours), vectors()
    (our_gradient,) = torch.autograd.grad(ours(x)[0], x, cotangent)
    (their_gradient,) = torch.autograd.grad(theirs(x), x, cotangent)
    assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-4)


def test_a_feed_forward_network_is_a_convolution_of_width_one():
    network, x = FeedForward(d_model=D_MODEL, d_ff=D_FF), vectors()
    widen, narrow = nn.Conv1d(D_MODEL, D_FF, 1), nn.Conv1d(D_FF, D_MODEL, 1)
    with torch.no_grad():
        for convolution, linear in ((widen, network.widen), (narrow, network.narrow)):
            convolution.weight.copy_(linear.weight[..., None])
            convolution.bias.copy_(linear.bias)
    assert_close(narrow(widen(x.transpose(1, 2)).relu()).transpose(1, 2), network(x))


# ---- gradients


def test_the_gradient_of_the_norm_is_right():
    norm = some_norm(5).double()
    x = vectors(3, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, gain, bias: norm(x), (x, norm.gain, norm.bias))


@both_orders
def test_the_gradient_of_a_block_is_right(norm_first):
    layer = block(norm_first).double()
    assert gradcheck(
        lambda x: layer(x)[0], vectors(1, 3, D_MODEL, dtype=torch.float64, requires_grad=True)
    )


@both_orders
def test_every_parameter_gets_a_gradient(norm_first):
    layer = block(norm_first, dropout=0.1)
    layer(vectors())[0].pow(3).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@both_orders
def test_where_nothing_may_be_attended_to_gradients_are_finite(norm_first):
    layer, x = block(norm_first), vectors(requires_grad=True)
    output, _ = layer(x, mask=torch.zeros(1, 1, 1, SEQ, dtype=torch.bool))
    output.square().sum().backward()
    assert output.isfinite().all() and x.grad.isfinite().all()


# ---- bad input


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_norm_refuses_another_dtype_unless_autocast_mixes_them(dtype):
    x = vectors().to(dtype)
    with pytest.raises(ValueError, match=f"x is {dtype}, the layer torch.float32"):
        some_norm(D_MODEL)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert some_norm(D_MODEL)(x).isfinite().all()


def test_another_device_is_refused():
    with pytest.raises(RuntimeError, match="device"):
        block(norm_first=True)(vectors().to("meta"))


@pytest.mark.parametrize(("d_model", "eps"), [(0, 1e-5), (-1, 1e-5), (3, 0.0), (3, -1e-5)])
def test_a_norm_of_no_width_or_no_eps_is_refused(d_model, eps):
    expected = f"d_model must be at least 1 and eps positive, got {d_model} and {eps}"
    with pytest.raises(ValueError, match=expected):
        LayerNorm(d_model=d_model, eps=eps)


@pytest.mark.parametrize(("d_model", "d_ff"), [(0, 3), (3, 0), (-2, 3)])
def test_a_network_of_no_width_is_refused(d_model, d_ff):
    expected = f"d_model and d_ff must be at least 1, got {d_model} and {d_ff}"
    with pytest.raises(ValueError, match=expected):
        FeedForward(d_model=d_model, d_ff=d_ff)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
def test_a_dropout_of_nothing_sensible_is_refused(dropout):
    expected = f"dropout must be at least 0 and below 1, got {dropout}"
    with pytest.raises(ValueError, match=expected):
        FeedForward(d_model=3, d_ff=5, dropout=dropout)
    parts = {"attention": nn.Identity(), "feed_forward": nn.Identity()}
    with pytest.raises(ValueError, match=expected):
        Block(**parts, d_model=3, dropout=dropout)


def test_a_block_of_no_width_is_refused():
    with pytest.raises(ValueError, match="d_model must be at least 1 and eps positive, got 0"):
        Block(attention=nn.Identity(), feed_forward=nn.Identity(), d_model=0)


@pytest.mark.parametrize("make", [some_norm, lambda: FeedForward(d_model=D_MODEL, d_ff=D_FF)])
@pytest.mark.parametrize("width", [1, D_MODEL - 1])
def test_vectors_of_another_width_are_refused(unchecked_shapes, make, width):
    # Of width 1 the norm would be broadcast, and answer with d_model numbers.
    expected = rf"x must be {D_MODEL} wide, got shape \({BATCH}, {SEQ}, {width}\)"
    with pytest.raises(ValueError, match=expected):
        make()(vectors(BATCH, SEQ, width))


@both_orders
def test_a_mask_that_does_not_fit_is_refused(norm_first):
    with pytest.raises(ValueError, match="does not fit scores"):
        block(norm_first)(vectors(), mask=torch.ones(BATCH, SEQ, dtype=torch.bool))


# ---- broken on purpose


@pytest.mark.parametrize("d_model", [3, 17, 512])
def test_a_norm_with_the_unbiased_deviation_is_caught(d_model):
    """It is too small by a factor of sqrt((d - 1) / d): one part in a thousand at width 512."""
    x = vectors(BATCH, SEQ, d_model)
    broken = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
    right = LayerNorm(d_model=d_model)(x)
    assert (broken - right).abs().max() > 5e-4
    with pytest.raises(AssertionError):
        assert_close(broken, nn.LayerNorm(d_model)(x), atol=1e-5, rtol=1e-5)


def test_eps_beside_the_root_is_caught():
    x = 1e-3 * vectors()
    distance = x - x.mean(-1, keepdim=True)
    deviation = distance.square().mean(-1, keepdim=True).sqrt()
    broken = distance / (deviation + 1e-5)
    assert (broken - LayerNorm(d_model=D_MODEL)(x)).abs().max() > 0.1


def test_a_norm_over_places_and_features_shows_the_future():
    x = vectors()
    norm = nn.LayerNorm((SEQ, D_MODEL))
    before = norm(x)
    x[:, -1] += vectors(BATCH, D_MODEL)
    assert (norm(x) - before)[:, :-1].abs().min(-1).values.max() > 1e-3


@both_orders
def test_the_other_order_is_caught(norm_first):
    ours, x = block(norm_first), vectors()
    theirs = pytorch_layer(ours)
    ours.norm_first = not norm_first
    assert (ours(x)[0] - theirs(x)).abs().max() > 0.1


@both_orders
def test_a_forgotten_residual_is_caught(norm_first):
    ours, x = block(norm_first), vectors()
    theirs = pytorch_layer(ours)

    class Forgotten(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x) - x

    ours.feed_forward = Forgotten(ours.feed_forward)
    assert (ours(x)[0] - theirs(x)).abs().max() > 0.1
