import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer_lit.recurrence import LSTM, Elman

# Sizes are different primes: a swapped axis cannot fit.
BATCH, SEQ, D_MODEL, D_STATE = 2, 7, 3, 5
BOTH = pytest.mark.parametrize("kind", [Elman, LSTM])


def vectors(batch=BATCH, seq=SEQ):
    return torch.randn(batch, seq, D_MODEL)


def both_parts(state):
    return state if isinstance(state, tuple) else (state,)


def theirs_with_weights_of(layer):
    """PyTorch's layer of the same kind; it has two biases, which are always added up."""
    kind = nn.RNN if isinstance(layer, Elman) else nn.LSTM
    theirs = kind(D_MODEL, D_STATE, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.x_proj.weight)
        theirs.weight_hh_l0.copy_(layer.h_proj.weight)
        theirs.bias_ih_l0.copy_(layer.x_proj.bias)
        theirs.bias_hh_l0.zero_()
    return theirs


# ---- values by hand


def test_an_elman_layer_of_one_unit_by_hand():
    layer = Elman(d_model=1, d_state=1)
    with torch.no_grad():
        layer.x_proj.weight.fill_(2.0)
        layer.x_proj.bias.fill_(0.5)
        layer.h_proj.weight.fill_(-1.0)
        states, last = layer(torch.tensor([[[1.0], [0.0]]]))
    first = math.tanh(2.5)
    second = math.tanh(0.5 - first)
    assert_close(states.flatten(), torch.tensor([first, second]))
    assert_close(last.flatten(), torch.tensor([second]))


def test_an_lstm_of_one_cell_by_hand():
    layer = LSTM(d_model=1, d_state=1)
    with torch.no_grad():
        layer.x_proj.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
        layer.x_proj.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        layer.h_proj.weight.copy_(torch.tensor([[-1.0], [1.0], [0.5], [2.0]]))
        outputs, (h, c) = layer(torch.tensor([[[1.0], [-0.5]]]))

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    c1 = sigmoid(1.1) * math.tanh(3.3)
    h1 = sigmoid(4.4) * math.tanh(c1)
    c2 = sigmoid(-0.8 + h1) * c1 + sigmoid(-0.4 - h1) * math.tanh(-1.2 + 0.5 * h1)
    h2 = sigmoid(-1.6 + 2 * h1) * math.tanh(c2)
    assert_close(outputs.flatten(), torch.tensor([h1, h2]))
    assert_close(torch.cat([h, c]).flatten(), torch.tensor([h2, c2]))


def test_forget_gates_start_at_the_bias_that_is_asked_for():
    for bias in (0.0, 1.0, 3.0):
        layer = LSTM(d_model=D_MODEL, d_state=D_STATE, forget_bias=bias)
        assert (layer.x_proj.bias.chunk(4)[1] == bias).all()
    default = LSTM(d_model=D_MODEL, d_state=D_STATE).x_proj.bias.chunk(4)
    assert (default[1] == 1).all() and all((part != 1).all() for part in default[::2])


# ---- properties


@BOTH
def test_shapes_and_the_last_state_is_the_last_output(kind):
    outputs, state = kind(d_model=D_MODEL, d_state=D_STATE)(vectors())
    assert outputs.shape == (BATCH, SEQ, D_STATE)
    assert torch.equal(both_parts(state)[0], outputs[:, -1])


@BOTH
def test_the_future_changes_nothing_of_the_past(kind):
    layer, x = kind(d_model=D_MODEL, d_state=D_STATE), vectors()
    for cut in range(1, SEQ):
        changed = x.clone()
        changed[:, cut:] = torch.randn_like(changed[:, cut:])
        before, after = layer(x)[0], layer(changed)[0]
        # To six digits: products of all places at once may be summed in another order.
        assert_close(after[:, :cut], before[:, :cut], atol=1e-6, rtol=0)
        assert (after[:, cut:] - before[:, cut:]).abs().amax(-1).min() > 1e-4


@BOTH
def test_padding_at_the_end_leaves_the_real_places_as_they_were(kind):
    layer, x = kind(d_model=D_MODEL, d_state=D_STATE), vectors()
    padded = nn.functional.pad(x, (0, 0, 0, 4))
    assert_close(layer(padded)[0][:, :SEQ], layer(x)[0], atol=1e-6, rtol=0)


@BOTH
def test_a_sequence_read_in_two_parts_gives_what_it_gives_in_one(kind):
    layer, x = kind(d_model=D_MODEL, d_state=D_STATE), vectors()
    whole, end = layer(x)
    first, state = layer(x[:, :3])
    second, last = layer(x[:, 3:], state)
    assert_close(torch.cat([first, second], 1), whole, atol=1e-6, rtol=0)
    for ours, theirs in zip(both_parts(last), both_parts(end), strict=True):
        assert_close(ours, theirs, atol=1e-6, rtol=0)


@BOTH
def test_sequences_of_a_batch_do_not_touch_one_another(kind):
    layer, x = kind(d_model=D_MODEL, d_state=D_STATE), vectors()
    assert_close(layer(x)[0][1:], layer(x[1:])[0], atol=1e-6, rtol=0)


@BOTH
def test_order_counts(kind):
    layer, x = kind(d_model=D_MODEL, d_state=D_STATE), vectors()
    swapped = x[:, [1, 0, *range(2, SEQ)]]
    assert (layer(swapped)[0][:, -1] - layer(x)[0][:, -1]).abs().max() > 1e-5


# ---- agreement with PyTorch, outputs and gradients


@BOTH
@pytest.mark.parametrize("given_state", [False, True])
def test_outputs_states_and_gradients_are_those_of_pytorch(kind, given_state):
    ours = kind(d_model=D_MODEL, d_state=D_STATE)
    theirs = theirs_with_weights_of(ours)
    x = vectors().requires_grad_()
    state = their_state = None
    if given_state:
        parts = [torch.randn(BATCH, D_STATE) for _ in range(1 if kind is Elman else 2)]
        state = parts[0] if kind is Elman else tuple(parts)
        their_state = parts[0][None] if kind is Elman else tuple(part[None] for part in parts)
    outputs, end = ours(x, state)
    their_outputs, their_end = theirs(x, their_state)
    assert_close(outputs, their_outputs, atol=1e-5, rtol=0)
    for one, other in zip(both_parts(end), both_parts(their_end), strict=True):
        assert_close(one, other[0], atol=1e-5, rtol=0)

    weight = torch.randn(BATCH, SEQ, D_STATE)
    [dx] = torch.autograd.grad((outputs * weight).sum(), x, retain_graph=True)
    [their_dx] = torch.autograd.grad((their_outputs * weight).sum(), x, retain_graph=True)
    assert_close(dx, their_dx, atol=1e-5, rtol=0)
    (outputs * weight).sum().backward()
    (their_outputs * weight).sum().backward()
    assert_close(ours.x_proj.weight.grad, theirs.weight_ih_l0.grad, atol=1e-5, rtol=0)
    assert_close(ours.h_proj.weight.grad, theirs.weight_hh_l0.grad, atol=1e-5, rtol=0)
    assert_close(ours.x_proj.bias.grad, theirs.bias_ih_l0.grad, atol=1e-5, rtol=0)


# ---- gradients


@BOTH
def test_gradients_are_right_to_their_second_order(kind):
    layer = kind(d_model=D_MODEL, d_state=D_STATE).double()
    x = torch.randn(BATCH, 3, D_MODEL, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x)


def test_every_parameter_gets_a_gradient():
    for kind in (Elman, LSTM):
        layer = kind(d_model=D_MODEL, d_state=D_STATE)
        layer(vectors())[0].square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_closed_input_gates_and_open_forget_gates_keep_a_cell_and_its_gradient():
    layer = LSTM(d_model=D_MODEL, d_state=D_STATE)
    with torch.no_grad():
        layer.x_proj.bias[:D_STATE] = -100.0  # input gates
        layer.x_proj.bias[D_STATE : 2 * D_STATE] = 100.0  # forget gates
    start = torch.randn(BATCH, D_STATE, requires_grad=True)
    _, (_, c) = layer(vectors(seq=101), (torch.zeros(BATCH, D_STATE), start))
    assert_close(c, start)
    [gradient] = torch.autograd.grad(c.sum(), start)
    assert_close(gradient, torch.ones_like(start))


# ---- bad input


@BOTH
@pytest.mark.parametrize("sizes", [(0, D_STATE), (D_MODEL, 0), (D_MODEL, -1)])
def test_sizes_below_one_are_refused(kind, sizes):
    with pytest.raises(ValueError, match=rf"at least 1, got {sizes[0]} and {sizes[1]}"):
        kind(d_model=sizes[0], d_state=sizes[1])


@BOTH
@pytest.mark.parametrize(
    "shape", [(BATCH, SEQ, D_MODEL + 1), (BATCH, 0, D_MODEL), (0, SEQ, D_MODEL)]
)
def test_vectors_that_do_not_fit_are_refused(kind, shape):
    layer = kind(d_model=D_MODEL, d_state=D_STATE)
    with pytest.raises(ValueError, match=rf"\(batch, seq, {D_MODEL}\) and not empty"):
        layer(torch.zeros(shape))


@BOTH
@pytest.mark.parametrize("shape", [(BATCH, D_STATE + 1), (BATCH + 1, D_STATE)])
def test_a_state_that_does_not_fit_is_refused(unchecked_shapes, kind, shape):
    layer, part = kind(d_model=D_MODEL, d_state=D_STATE), torch.zeros(shape)
    state = part if kind is Elman else (part, part)
    with pytest.raises(ValueError, match=rf"state must be \({BATCH}, {D_STATE}\)"):
        layer(vectors(), state)


# ---- broken on purpose


def test_a_state_that_is_not_passed_on_is_caught():
    ours = LSTM(d_model=D_MODEL, d_state=D_STATE)
    x = vectors()
    forgetful = torch.cat([ours(x[:, place : place + 1])[0] for place in range(SEQ)], 1)
    right = theirs_with_weights_of(ours)(x)[0]
    assert_close(forgetful[:, 0], right[:, 0], atol=1e-5, rtol=0)
    assert (forgetful[:, 1:] - right[:, 1:]).abs().amax((0, 2)).min() > 1e-3


def test_gates_in_another_order_are_caught():
    ours = LSTM(d_model=D_MODEL, d_state=D_STATE)
    theirs, x = theirs_with_weights_of(ours), vectors()
    with torch.no_grad():
        for weight in (theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0):
            i, f, g, o = weight.clone().chunk(4)
            weight.copy_(torch.cat([f, i, g, o]))
    assert (theirs(x)[0] - ours(x)[0]).abs().max() > 1e-3
