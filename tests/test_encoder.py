import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer_lit.encoder import Encoder, SummaryToken, mean_pool
from transformer_lit.masking import causal_mask, padding_mask
from transformer_lit.relative_positions import ALiBi

BATCH, SEQ, HEADS, D_HEAD, D_FF, LAYERS = 3, 7, 2, 5, 11, 5
D_MODEL = HEADS * D_HEAD
LENGTHS = torch.tensor([7, 3, 1])


def encoder(n_layers=LAYERS, **options):
    return Encoder(n_layers=n_layers, d_model=D_MODEL, n_heads=HEADS, d_ff=D_FF, **options)


def vectors():
    return torch.randn(BATCH, SEQ, D_MODEL)


def real():
    return torch.arange(SEQ) < LENGTHS[:, None]


# ---- by hand


def test_a_mean_by_hand_leaves_padding_out():
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], [[5.0, 7.0], [8.0, 8.0], [8.0, 8.0]]])
    assert mean_pool(x, torch.tensor([2, 1])).tolist() == [[2.0, 4.0], [5.0, 7.0]]


@pytest.mark.parametrize("d_model", [1, 2])
def test_the_token_stands_in_front_and_lengthens_each_sequence_by_one(d_model):
    token = SummaryToken(d_model=d_model)
    first, others = torch.tensor([[0.5, -0.5]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with torch.no_grad():
        token.vector.copy_(first[0, :d_model])
    x, lengths = token(others[None, :, :d_model], torch.tensor([1]))
    assert torch.equal(x, torch.cat([first, others])[None, :, :d_model])
    assert lengths.tolist() == [2]


def test_blocks_that_add_nothing_leave_the_last_norm():
    """With all ways out at zero only the residuals are left: (1, 3) has mean 2, deviation 1."""
    model = Encoder(n_layers=3, d_model=2, n_heads=1, d_ff=5)
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attention.out_proj, block.feed_forward.narrow):
                layer.weight.zero_()
                layer.bias.zero_()
    assert_close(model(torch.tensor([[[1.0, 3.0]]]))[0], torch.tensor([[[-1.0, 1.0]]]))


def test_a_stack_is_its_blocks_in_turn_and_a_norm():
    model, x, mask = encoder(), vectors(), padding_mask(LENGTHS, SEQ)
    expected = x
    for block in model.blocks:
        expected, _ = block(expected, mask=mask)
    assert_close(model(x, mask=mask)[0], model.norm(expected))


@pytest.mark.parametrize("n_layers", [1, 2, 13])
def test_parameters_grow_by_the_same_amount_with_each_block(n_layers):
    counted = sum(parameter.numel() for parameter in encoder(n_layers).parameters())
    attention = 4 * (D_MODEL * D_MODEL + D_MODEL)
    feed_forward = 2 * D_MODEL * D_FF + D_FF + D_MODEL
    assert counted == n_layers * (attention + feed_forward + 4 * D_MODEL) + 2 * D_MODEL


def test_no_two_blocks_share_a_parameter():
    model = encoder()
    first, second = model.blocks[0].attention.q_proj.weight, model.blocks[1].attention.q_proj.weight
    assert len({id(p) for p in model.parameters()}) == len(list(model.parameters()))
    assert (first - second).abs().max() > 1e-3


# ---- properties


def test_what_stands_in_the_padding_changes_nothing_to_the_bit():
    model, x, mask = encoder(), vectors(), padding_mask(LENGTHS, SEQ)
    other = torch.where(real()[..., None], x, 1e4 * torch.randn_like(x))
    for need_weights in (False, True):
        before, _ = model(x, mask=mask, need_weights=need_weights)
        after, _ = model(other, mask=mask, need_weights=need_weights)
        assert torch.equal(before[real()], after[real()])
        assert torch.equal(mean_pool(before, LENGTHS), mean_pool(after, LENGTHS))


@pytest.mark.parametrize("more", [1, 13])
def test_more_padding_changes_nothing(more):
    model, x = encoder(), vectors()
    longer = nn.functional.pad(x, (0, 0, 0, more), value=7.0)
    before, _ = model(x, mask=padding_mask(LENGTHS, SEQ))
    after, _ = model(longer, mask=padding_mask(LENGTHS, SEQ + more))
    assert_close(after[:, :SEQ][real()], before[real()], atol=1e-5, rtol=0)
    assert_close(mean_pool(after, LENGTHS), mean_pool(before, LENGTHS), atol=1e-5, rtol=0)


def test_a_sequence_alone_and_one_in_a_batch_agree():
    model, x = encoder(), vectors()
    together, _ = model(x, mask=padding_mask(LENGTHS, SEQ))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = model(x[row : row + 1, :length])
        assert_close(alone[0], together[row, :length], atol=1e-5, rtol=0)


def test_padding_gets_no_weight_in_any_layer():
    _, all_weights = encoder()(vectors(), mask=padding_mask(LENGTHS, SEQ), need_weights=True)
    assert len(all_weights) == LAYERS
    for weights in all_weights:
        assert weights.shape == (BATCH, HEADS, SEQ, SEQ)
        padding = ~real()[:, None, None].expand_as(weights)
        assert (weights[padding] == 0).all() and (weights[~padding] > 0).all()
        assert_close(weights.sum(-1), torch.ones(BATCH, HEADS, SEQ))


def test_the_summary_token_is_seen_and_padding_is_not():
    token = SummaryToken(d_model=D_MODEL)
    x, lengths = token(vectors(), LENGTHS)
    _, all_weights = encoder()(x, mask=padding_mask(lengths, SEQ + 1), need_weights=True)
    for weights in all_weights:
        assert (weights[1, ..., :4] > 0).all() and (weights[1, ..., 4:] == 0).all()


def test_the_summary_does_not_depend_on_padding():
    token, model, x = SummaryToken(d_model=D_MODEL), encoder(), vectors()
    other = torch.where(real()[..., None], x, 1e4 * torch.randn_like(x))
    summaries = []
    for values in (x, other):
        longer, lengths = token(values, LENGTHS)
        summaries.append(model(longer, mask=padding_mask(lengths, SEQ + 1))[0][:, 0])
    assert torch.equal(*summaries)


def test_every_block_obeys_the_mask_of_the_future():
    model, x = encoder(), vectors()
    other = x.clone()
    other[:, 4:] += 1
    before, all_weights = model(x, mask=causal_mask(SEQ), need_weights=True)
    after, _ = model(other, mask=causal_mask(SEQ), need_weights=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert all((weights.triu(1) == 0).all() for weights in all_weights)


def test_permuting_the_positions_permutes_the_output():
    model, x, order = encoder(), vectors(), torch.randperm(SEQ)
    assert_close(model(x[:, order])[0], model(x)[0][:, order], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_layers", "reach"), [(1, 1), (2, 2), (5, 5)])
def test_with_neighbours_only_each_block_reaches_one_step_further(n_layers, reach):
    model, place = encoder(n_layers), torch.arange(SEQ)
    neighbours = ((place - place[:, None]).abs() <= 1)[None, None]
    x = vectors().requires_grad_()
    model(x, mask=neighbours)[0][0, 0].square().sum().backward()
    moved = x.grad[0].abs().sum(-1) > 0
    assert moved.tolist() == [position <= reach for position in range(SEQ)]


def test_weights_come_only_when_asked_for_and_change_nothing():
    model, x, mask = encoder(), vectors(), padding_mask(LENGTHS, SEQ)
    plain, none = model(x, mask=mask)
    explained, _ = model(x, mask=mask, need_weights=True)
    assert none == []
    assert_close(plain, explained)


def test_dropout_acts_in_training_only():
    model, x = encoder(dropout=0.5), vectors()
    assert (model(x)[0] - model(x)[0]).abs().max() > 1e-3
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


def test_every_dropout_has_the_share_asked_for():
    shares = [part.p for part in encoder(dropout=0.3).modules() if isinstance(part, nn.Dropout)]
    assert shares == [0.3] * 2 * LAYERS


def test_the_mean_of_equal_vectors_is_that_vector_at_any_length():
    x = torch.randn(1, 1, D_MODEL).expand(BATCH, SEQ, D_MODEL)
    assert_close(mean_pool(x, LENGTHS), x[:, 0])


def test_a_value_that_is_no_number_in_the_padding_does_not_reach_the_mean():
    x = vectors().masked_fill(~real()[..., None], torch.nan)
    assert mean_pool(x, LENGTHS).isfinite().all()


# ---- agreement with PyTorch


def theirs(model, norm_first=True):
    """PyTorch's own encoder with the weights of ours."""
    layer = nn.TransformerEncoderLayer(
        D_MODEL,
        HEADS,
        D_FF,
        dropout=0.0,
        batch_first=True,
        norm_first=norm_first,
    )
    stack = nn.TransformerEncoder(
        layer, len(model.blocks), norm=nn.LayerNorm(D_MODEL), enable_nested_tensor=False
    )
    norms = [(stack.norm, model.norm)]
    with torch.no_grad():
        for ours, other in zip(model.blocks, stack.layers, strict=True):
            three = [ours.attention.get_submodule(f"{name}_proj") for name in "qkv"]
            other.self_attn.in_proj_weight.copy_(torch.cat([proj.weight for proj in three]))
            other.self_attn.in_proj_bias.copy_(torch.cat([proj.bias for proj in three]))
            other.self_attn.out_proj.load_state_dict(ours.attention.out_proj.state_dict())
            other.linear1.load_state_dict(ours.feed_forward.widen.state_dict())
            other.linear2.load_state_dict(ours.feed_forward.narrow.state_dict())
            norms += [(other.norm1, ours.attention_norm), (other.norm2, ours.feed_forward_norm)]
        for other, ours in norms:
            other.weight.copy_(ours.gain.normal_(1, 0.3))
            other.bias.copy_(ours.bias.normal_(0, 0.3))
    return stack


@pytest.mark.parametrize("norm_first", [True, False])
def test_agrees_with_pytorch_under_padding(norm_first):
    model, x = encoder(norm_first=norm_first), vectors()
    expected = theirs(model, norm_first)(x, src_key_padding_mask=~real())
    for need_weights in (False, True):
        ours, _ = model(x, mask=padding_mask(LENGTHS, SEQ), need_weights=need_weights)
        assert_close(ours[real()], expected[real()], atol=1e-5, rtol=0)


def test_agrees_with_pytorch_under_padding_and_the_mask_of_the_future():
    model, x = encoder(), vectors()
    both = padding_mask(LENGTHS, SEQ) & causal_mask(SEQ)
    expected = theirs(model)(x, mask=~causal_mask(SEQ)[0, 0], src_key_padding_mask=~real())
    assert_close(model(x, mask=both)[0][real()], expected[real()], atol=1e-5, rtol=0)


def test_each_block_gets_a_relative_position_of_its_own():
    made = []

    def position():
        made.append(ALiBi(n_heads=HEADS))
        return made[-1]

    model, x = encoder(position=position), vectors()
    assert [block.attention.position for block in model.blocks] == made
    order = torch.randperm(SEQ)
    moved = model(x[:, order])[0]
    assert (moved - model(x)[0][:, order]).abs().max() > 1e-2  # now it sees the order


def test_the_mask_of_the_wrong_polarity_disagrees():
    model, x = encoder(), vectors()
    expected = theirs(model)(x, src_key_padding_mask=~real())
    broken, _ = model(x, mask=~padding_mask(LENGTHS, SEQ))
    assert (broken[1:][real()[1:]] - expected[1:][real()[1:]]).abs().max() > 1e-2


def test_without_the_last_norm_it_disagrees():
    model, x = encoder(), vectors()
    expected = theirs(model)(x)
    model.norm = nn.Identity()
    assert (model(x)[0] - expected).abs().max() > 0.1


# ---- gradients


def test_every_parameter_gets_a_gradient():
    model, token = encoder(), SummaryToken(d_model=D_MODEL)
    x, lengths = token(vectors(), LENGTHS)
    y, _ = model(x, mask=padding_mask(lengths, SEQ + 1))
    (mean_pool(y, lengths) * torch.randn(D_MODEL)).square().sum().backward()
    for name, parameter in [*model.named_parameters(), *token.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # One number added to all scores of a query changes no weight: key biases get nothing.
        if "k_proj.bias" not in name:
            assert parameter.grad.abs().max() > 1e-6, name


def test_padding_gets_no_gradient():
    model, x = encoder(), vectors().requires_grad_()
    y, _ = model(x, mask=padding_mask(LENGTHS, SEQ))
    mean_pool(y, LENGTHS).square().sum().backward()
    assert (x.grad[~real()] == 0).all() and (x.grad[real()].abs().sum(-1) > 0).all()


def test_the_gradient_of_the_mean_is_its_difference_quotient():
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mean_pool(x, torch.tensor([3, 2])), x)


# ---- bad input


@pytest.mark.parametrize("n_layers", [0, -1])
def test_a_stack_without_blocks_is_refused(n_layers):
    with pytest.raises(ValueError, match=f"n_layers must be at least 1, got {n_layers}"):
        encoder(n_layers)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_heads": 3}, "divide d_model, got 3 heads for a width of 10"),
        ({"d_model": 0}, "got 2 heads for a width of 0"),
        ({"d_ff": 0}, "d_model and d_ff must be at least 1, got 10 and 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sizes_that_a_block_refuses_are_refused(sizes, message):
    arguments = {"d_model": D_MODEL, "n_heads": HEADS, "d_ff": D_FF} | sizes
    with pytest.raises(ValueError, match=message):
        Encoder(n_layers=LAYERS, **arguments)


def test_vectors_of_another_width_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"got shape \(3, 7, 9\)"):
        encoder()(torch.randn(BATCH, SEQ, D_MODEL - 1))
    with pytest.raises(ValueError, match=r"must be 10 wide, got shape \(3, 7, 9\)"):
        SummaryToken(d_model=D_MODEL)(torch.randn(BATCH, SEQ, D_MODEL - 1), LENGTHS)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="mask"):
        encoder()(vectors(), mask=padding_mask(LENGTHS, SEQ + 1))


@pytest.mark.parametrize("lengths", [[7, 0, 1], [7, -1, 1], [7, 8, 1]])
def test_lengths_outside_the_sequence_are_refused(lengths):
    message = rf"lengths must lie in 1 \.\. 7, got \[7, {lengths[1]}, 1\]"
    with pytest.raises(ValueError, match=message):
        mean_pool(vectors(), torch.tensor(lengths))
    with pytest.raises(ValueError, match=message):
        SummaryToken(d_model=D_MODEL)(vectors(), torch.tensor(lengths))


@pytest.mark.parametrize("lengths", [[7, 3], [7, 3, 1, 2], [[7], [3], [1]]])
def test_another_number_of_lengths_is_refused(unchecked_shapes, lengths):
    with pytest.raises(ValueError, match=r"one length per sequence, got shapes \(3, 7, 10\) and"):
        mean_pool(vectors(), torch.tensor(lengths))


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match=r"not empty, .* got shapes \(0, 7, 10\) and \(0,\)"):
        mean_pool(vectors()[:0], LENGTHS[:0])


def test_a_token_of_no_width_is_refused():
    with pytest.raises(ValueError, match="d_model must be at least 1, got 0"):
        SummaryToken(d_model=0)


# ---- broken on purpose


def test_a_mean_over_all_positions_is_caught():
    x = vectors()
    assert (x.mean(1) - mean_pool(x, LENGTHS)).abs().max() > 0.1


def test_a_mask_for_the_first_block_only_is_caught():
    model, x, mask = encoder(), vectors(), padding_mask(LENGTHS, SEQ)
    y, _ = model.blocks[0](x, mask=mask)
    for block in model.blocks[1:]:
        y, _ = block(y)
    assert (model.norm(y) - model(x, mask=mask)[0])[real()].abs().max() > 0.01
