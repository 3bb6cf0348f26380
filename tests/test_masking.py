import math

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from transformer_lit.attention import explicit_attention, fused_attention, softmax_weights
from transformer_lit.masking import (
    causal_mask,
    forbidden,
    from_additive,
    local_mask,
    padding_mask,
    to_additive,
)
from transformer_lit.multi_head import MultiHeadAttention

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SEQ, HEADS, D_HEAD = 2, 7, 3, 5
D_MODEL = HEADS * D_HEAD
LENGTHS = torch.tensor([SEQ, 4])
WINDOW = 2


def vectors(batch: int = BATCH) -> torch.Tensor:
    return torch.randn(batch, SEQ, D_MODEL)


def joined() -> torch.Tensor:
    """A mask in which no query is left with nothing, and the two sequences differ."""
    return padding_mask(LENGTHS, SEQ) & causal_mask(SEQ)


def two_layers(first, last):
    layers = [MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS) for _ in range(2)]

    @torch.no_grad()
    def run(x):
        x = x + layers[0](x, mask=first)[0]
        return x + layers[1](x, mask=last)[0]

    return run


def same_places(run, x, changed):
    """Where the output stays as it was, to the bit, when some places of the input change."""
    other = x.clone()
    other[:, changed] = torch.randn_like(other[:, changed])
    return (run(x) == run(other)).all(-1).all(0)


# ---- hand-computed values


def test_a_padding_mask_by_hand():
    mask = padding_mask(torch.tensor([3, 0, 1]), 3)
    assert mask.shape == (3, 1, 1, 3) and mask.dtype == torch.bool
    assert mask[:, 0, 0].tolist() == [[True] * 3, [False] * 3, [True, False, False]]


def test_a_causal_mask_by_hand():
    mask = causal_mask(3)
    assert mask.shape == (1, 1, 3, 3) and mask.dtype == torch.bool
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_local_mask_by_hand():
    mask = local_mask(4, 1)
    assert mask.shape == (1, 1, 4, 4) and mask.dtype == torch.bool
    rows = [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert mask[0, 0].int().tolist() == rows


def test_aap_kaise_hai_by_hand():
    scores = torch.tensor([[2.0, 1, 1], [1, 3, 2], [1, 2, 1]]).log()
    expected = torch.tensor([[1, 0, 0], [1 / 4, 3 / 4, 0], [1 / 4, 1 / 2, 1 / 4]])
    assert_close(softmax_weights(scores, causal_mask(3)[0, 0]), expected)
    assert_close((scores + to_additive(causal_mask(3)[0, 0])).softmax(-1), expected)


def test_an_additive_mask_by_hand():
    additive = to_additive(torch.tensor([True, False]))
    assert additive.tolist() == [0.0, -math.inf] and additive.dtype == torch.float32


# ---- properties


def test_a_window_of_zero_is_the_diagonal_and_a_wide_one_hides_nothing():
    assert torch.equal(local_mask(SEQ, 0)[0, 0], torch.eye(SEQ, dtype=torch.bool))
    assert local_mask(SEQ, SEQ - 1).all()
    assert not local_mask(SEQ, SEQ - 2).all()


@pytest.mark.parametrize("window", [0, 1, 2, 3])
def test_local_and_causal_leave_the_window_and_nothing_after(window):
    mask = (local_mask(SEQ, window) & causal_mask(SEQ))[0, 0]
    for query in range(SEQ):
        assert mask[query].nonzero().flatten().tolist() == list(
            range(max(0, query - window), query + 1)
        )


def test_masks_joined_have_the_shape_of_scores_and_allow_what_all_allow():
    mask = padding_mask(LENGTHS, SEQ) & causal_mask(SEQ) & local_mask(SEQ, WINDOW)
    assert mask.shape == (BATCH, 1, SEQ, SEQ)
    for b in range(BATCH):
        for i in range(SEQ):
            for j in range(SEQ):
                allowed = j < LENGTHS[b] and j <= i and i - j <= WINDOW
                assert bool(mask[b, 0, i, j]) == bool(allowed)


@pytest.mark.parametrize("cut", range(1, SEQ))
def test_the_past_does_not_change_to_the_bit_when_the_future_does(cut):
    mask = causal_mask(SEQ)
    same = same_places(two_layers(mask, mask), vectors(), slice(cut, SEQ))
    assert same.tolist() == [place < cut for place in range(SEQ)]


@pytest.mark.parametrize("need_weights", [False, True])
def test_padding_changes_nothing(need_weights):
    layer, x = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), vectors(1)[:, :4]
    padded = torch.cat([x, torch.randn(1, SEQ - 4, D_MODEL)], dim=1)
    mask = padding_mask(torch.tensor([4]), SEQ)
    assert_close(layer(padded, mask=mask, need_weights=need_weights)[0][:, :4], layer(x)[0])


def test_information_travels_one_window_per_layer():
    mask = local_mask(SEQ, WINDOW)
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)
    with torch.no_grad():
        one = same_places(lambda x: layer(x, mask=mask)[0], vectors(), [0])
    two = same_places(two_layers(mask, mask), vectors(), [0])
    assert one.tolist() == [place > WINDOW for place in range(SEQ)]
    assert two.tolist() == [place > 2 * WINDOW for place in range(SEQ)]


def test_one_pass_gives_what_each_prefix_alone_gives():
    layer, x = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), vectors()
    whole, _ = layer(x, mask=causal_mask(SEQ))
    for n in range(1, SEQ + 1):
        alone, _ = layer(x[:, :n], mask=causal_mask(n))
        assert_close(alone[:, -1], whole[:, n - 1])


@pytest.mark.parametrize("attend", [fused_attention, lambda *given: explicit_attention(*given)[0]])
def test_a_query_with_nothing_to_attend_to_gets_zeros_and_finite_gradients(attend):
    mask = padding_mask(LENGTHS, SEQ) & local_mask(SEQ, WINDOW)
    empty = ~mask.any(-1)[:, 0]
    assert empty.nonzero().tolist() == [[1, 6]]  # length 4: place 6 sees 4, 5 and 6, all padding
    q, k, v = (torch.randn(BATCH, 1, SEQ, D_HEAD, requires_grad=True) for _ in range(3))
    output = attend(q, k, v, mask)
    assert torch.equal(output[:, 0][empty], torch.zeros(1, D_HEAD))
    gradients = torch.autograd.grad(output.square().sum(), (q, k, v))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert torch.equal(gradients[0][:, 0][empty], torch.zeros(1, D_HEAD))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_trips(dtype):
    for mask in (joined(), padding_mask(LENGTHS, SEQ), local_mask(SEQ, WINDOW), ~joined()):
        assert torch.equal(forbidden(forbidden(mask)), mask)
        additive = to_additive(mask, dtype)
        assert additive.dtype == dtype and additive.shape == mask.shape
        assert torch.equal(from_additive(additive), mask)
        assert torch.equal(to_additive(from_additive(additive), dtype), additive)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hidden", [-1e4, -1e9, "smallest"])
def test_what_others_add_to_hide_is_read_as_hidden(dtype, hidden):
    value = torch.finfo(dtype).min if hidden == "smallest" else hidden
    additive = torch.tensor([0.0, value], dtype=dtype)
    assert from_additive(additive).tolist() == [True, False]
    # Two masks added up hide twice.
    assert from_additive(additive + additive.flip(0)).tolist() == [False, False]


# ---- agreement with PyTorch and Hugging Face


def pytorch_layer(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    projections = ours.q_proj, ours.k_proj, ours.v_proj
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def test_agrees_with_the_fused_attention_of_pytorch():
    q, k, v = torch.randn(3, BATCH, HEADS, SEQ, D_HEAD)
    mask = joined()
    expected, _ = explicit_attention(q, k, v, mask)
    assert_close(scaled_dot_product_attention(q, k, v, attn_mask=mask), expected)
    assert_close(scaled_dot_product_attention(q, k, v, attn_mask=to_additive(mask)), expected)
    expected, _ = explicit_attention(q, k, v, causal_mask(SEQ))
    assert_close(scaled_dot_product_attention(q, k, v, is_causal=True), expected)


def test_agrees_with_multihead_attention_of_pytorch():
    ours, x, mask = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), vectors(), joined()
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, batch_first=True)
    pytorch_layer(ours, theirs)
    expected, expected_weights = ours(x, mask=mask, need_weights=True)
    two = {
        "key_padding_mask": forbidden(padding_mask(LENGTHS, SEQ))[:, 0, 0],
        "attn_mask": forbidden(causal_mask(SEQ))[0, 0],
    }
    each = mask.expand(-1, HEADS, -1, -1).flatten(0, 1)  # (batch * heads, query, key)
    for given in (two, {"attn_mask": forbidden(each)}, {"attn_mask": to_additive(each)}):
        output, weights = theirs(x, x, x, average_attn_weights=False, **given)
        assert_close(output, expected)
        assert_close(weights, expected_weights)


def test_agrees_with_the_transformer_layers_of_pytorch():
    ours, x = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), vectors()
    layer = nn.TransformerEncoderLayer(D_MODEL, HEADS, 11, dropout=0.0, batch_first=True)
    pytorch_layer(ours, layer.self_attn)
    causal = nn.Transformer.generate_square_subsequent_mask(SEQ)
    assert torch.equal(from_additive(causal), causal_mask(SEQ)[0, 0])
    assert torch.equal(to_additive(causal_mask(SEQ)[0, 0]), causal)
    middle = layer.norm1(x + ours(x, mask=joined())[0])
    expected = layer.norm2(middle + layer.linear2(layer.linear1(middle).relu()))
    output = layer(
        x,
        src_mask=forbidden(causal_mask(SEQ))[0, 0],
        src_key_padding_mask=forbidden(padding_mask(LENGTHS, SEQ))[:, 0, 0],
    )
    assert_close(output, expected)


@pytest.fixture
def hugging_face():
    """A tiny model with random weights that adds its masks to the scores."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=29,
        hidden_size=D_MODEL,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=11,
        max_position_embeddings=13,
        attn_implementation="eager",
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():  # its own weights are so small that masks hardly matter
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                parameter.mul_(10)

    @torch.no_grad()
    def run(tokens, mask):
        return model(tokens, attention_mask=mask).last_hidden_state

    return model, run


def test_agrees_with_hugging_face(hugging_face):
    model, run = hugging_face
    tokens, mask = torch.randint(1, 29, (BATCH, SEQ)), padding_mask(LENGTHS, SEQ)
    expected = run(tokens, mask[:, 0, 0].long())  # 1 = may attend, (batch, key)
    assert (run(tokens, torch.ones(BATCH, SEQ)) - expected)[1].abs().max() > 1e-2
    assert_close(run(tokens, to_additive(mask)), expected)
    given = []
    attention = model.encoder.layer[0].attention
    hook = attention.register_forward_pre_hook(
        lambda module, args, named: given.append(named.get("attention_mask", args[1:2])),
        with_kwargs=True,
    )
    run(tokens, mask[:, 0, 0].long())
    hook.remove()
    [inside] = given
    inside = inside[0] if isinstance(inside, tuple) else inside
    assert inside.min() == torch.finfo(torch.float32).min
    assert torch.equal(from_additive(inside), mask.expand(-1, -1, SEQ, -1))


def test_hugging_face_keeps_the_past_to_the_bit_under_our_causal_mask(hugging_face):
    _, run = hugging_face
    tokens = torch.randint(1, 29, (BATCH, SEQ))
    other = tokens.clone()
    other[:, 5:] = (tokens[:, 5:] + 1) % 29
    additive = to_additive(joined())
    same = (run(tokens, additive) == run(other, additive)).all(-1).all(0)
    assert same.tolist() == [place < 5 for place in range(SEQ)]


# ---- gradients


def test_no_gradient_reaches_what_may_not_be_seen():
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)
    x = vectors().requires_grad_()
    for query in range(SEQ):
        output, _ = layer(x, mask=joined())
        [gradient] = torch.autograd.grad(output[:, query].square().sum(), x)
        seen = (torch.arange(SEQ) <= query) & (torch.arange(SEQ) < LENGTHS[:, None])
        seen |= torch.arange(SEQ) == query  # a query always depends on itself
        assert torch.equal(gradient.abs().sum(-1) > 0, seen)


# ---- bad input


@pytest.mark.parametrize("seq", [0, -3])
def test_a_sequence_of_nothing_is_refused(seq):
    for make in (
        causal_mask,
        lambda seq: local_mask(seq, 1),
        lambda seq: padding_mask(LENGTHS, seq),
    ):
        with pytest.raises(ValueError, match=f"seq must be at least 1 and whole, got {seq}"):
            make(seq)


def test_a_window_below_zero_is_refused():
    with pytest.raises(ValueError, match="window must be at least 0 and whole, got -1"):
        local_mask(SEQ, -1)


@pytest.mark.parametrize("bad", [-1, SEQ + 1])
def test_lengths_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=rf"lengths must lie in 0 \.\. {SEQ}, got \[3, {bad}\]"):
        padding_mask(torch.tensor([3, bad]), SEQ)


@pytest.mark.parametrize("lengths", [torch.tensor([2.5]), torch.tensor([True])])
def test_lengths_that_count_nothing_are_refused(unchecked_shapes, lengths):
    with pytest.raises(ValueError, match=f"lengths must be integers, got {lengths.dtype}"):
        padding_mask(lengths, SEQ)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_a_mask_that_is_not_boolean_is_refused_by_the_converters(unchecked_shapes, dtype):
    mask = causal_mask(SEQ).to(dtype)
    for convert in (forbidden, to_additive):
        with pytest.raises(ValueError, match=f"must be torch.bool .*, got {dtype}"):
            convert(mask)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_an_additive_mask_without_real_numbers_is_refused(unchecked_shapes, dtype):
    with pytest.raises(ValueError, match=f"must hold real numbers, got {dtype}"):
        from_additive(torch.zeros(SEQ, dtype=dtype))
    with pytest.raises(ValueError, match=f"one of real numbers, got {dtype}"):
        to_additive(causal_mask(SEQ), dtype)


@pytest.mark.parametrize("bias", [-0.5, 1.0, -8192.0, -9000.0, math.inf, math.nan])
def test_a_bias_is_no_mask(bias):
    with pytest.raises(ValueError, match=rf"0 or below -9000\.0, got {bias}"):
        from_additive(torch.tensor([0.0, -math.inf, bias]))


@pytest.mark.parametrize("lengths", [[3, 2, 5], [1] * 5])
def test_masks_of_another_batch_are_refused_where_they_are_used(lengths):
    mask = padding_mask(torch.tensor(lengths), SEQ) & causal_mask(SEQ)
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)
    shapes = (
        rf"\({len(lengths)}, 1, {SEQ}, {SEQ}\) does not fit .* \({BATCH}, {HEADS}, {SEQ}, {SEQ}"
    )
    for need_weights in (False, True):
        with pytest.raises(ValueError, match=shapes):
            layer(vectors(), mask=mask, need_weights=need_weights)


def test_an_additive_mask_is_refused_by_the_layer(unchecked_shapes):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)
    with pytest.raises(ValueError, match=r"True = may attend, got torch\.float32"):
        layer(vectors(), mask=to_additive(causal_mask(SEQ)))


# ---- broken on purpose


def test_a_mask_of_the_wrong_polarity_lets_padding_in():
    layer, x = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), vectors(1)
    right = padding_mask(torch.tensor([4]), SEQ)
    hidden = slice(4, SEQ)
    for mask, kept in [(right, True), (forbidden(right), False)]:
        with torch.no_grad():
            same = same_places(lambda x, mask=mask: layer(x, mask=mask)[0], x, hidden)
        assert bool(same[:4].all()) is kept and bool(same[:4].any()) is kept


@pytest.mark.parametrize("diagonal", [1, 2])
def test_a_mask_that_is_one_off_leaks(diagonal):
    mask = torch.ones(SEQ, SEQ, dtype=torch.bool).tril(diagonal)[None, None]
    same = same_places(two_layers(mask, mask), vectors(), slice(4, SEQ))
    assert same.tolist() == [place < 4 - 2 * diagonal for place in range(SEQ)]


def test_a_mask_in_the_last_layer_only_leaks():
    same = same_places(two_layers(None, causal_mask(SEQ)), vectors(), [SEQ - 1])
    assert not same.any()


def test_weights_erased_after_the_softmax_leak_through_the_sum():
    q, k, v = torch.randn(3, SEQ, D_HEAD)

    def erased(k):
        weights = (q @ k.T / D_HEAD**0.5).softmax(-1) * causal_mask(SEQ)[0, 0]
        return weights @ v

    same = same_places(lambda k: erased(k[0])[None], k[None], [SEQ - 1])
    assert not same.any()


def test_a_boolean_mask_that_is_added_hides_nothing(hugging_face):
    """Adding booleans adds 0 and 1: no error, and the hidden places are seen."""
    _, run = hugging_face
    tokens, mask = torch.randint(1, 29, (BATCH, SEQ)), padding_mask(LENGTHS, SEQ)
    right = run(tokens, mask[:, 0, 0].long())
    assert (run(tokens, mask.expand(-1, -1, SEQ, -1)) - right)[1, :4].abs().max() > 1e-2
