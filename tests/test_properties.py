"""Properties that hold for all sizes, dtypes and masks, tried on some that hypothesis draws.

The draws are the same each time, so that a test that passes once passes always.
"""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from transformer_lit.attention import (
    AdditiveScores,
    SelfAttention,
    dot_product_scores,
    explicit_attention,
    fused_attention,
    softmax_weights,
)
from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.decoding import beam, error_rates, greedy, sample, truncate
from transformer_lit.encoder import Encoder, SummaryToken, mean_pool
from transformer_lit.encoder_decoder import BEGIN_ID, PAD_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.masking import (
    causal_mask,
    forbidden,
    from_additive,
    local_mask,
    padding_mask,
    to_additive,
)
from transformer_lit.multi_head import MultiHeadAttention, SeparateHeads
from transformer_lit.positions import (
    LearnedPositions,
    OneHotPositions,
    SinusoidalPositions,
    sinusoids,
)
from transformer_lit.relative_positions import (
    T5,
    ALiBi,
    RoPE,
    Shaw,
    TransformerXL,
    buckets,
    offsets,
    shift,
    slopes,
    to_half_split,
)
from transformer_lit.sparse_attention import (
    GraphAttention,
    WindowedAttention,
    edge_softmax,
    edges_of,
    windowed_attention,
)

tried = settings(derandomize=True, deadline=None, max_examples=25, database=None)

CLOSE = {  # per dtype, for numbers of about 1
    torch.float64: {"atol": 1e-10, "rtol": 1e-10},
    torch.float32: {"atol": 2e-5, "rtol": 2e-5},
    torch.bfloat16: {"atol": 6e-2, "rtol": 6e-2},
}
dtypes = st.sampled_from(list(CLOSE))
exact = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31)
shares = st.sampled_from([0.0, 0.3, 0.7, 1.0])  # of what a mask lets attend
few, some = st.integers(1, 3), st.integers(1, 7)
POSITIONS = {
    "none": lambda heads, d: None,
    "Shaw": lambda heads, d: Shaw(d_head=d, clip=2),
    "Shaw, keys alone": lambda heads, d: Shaw(d_head=d, clip=2, values=False),
    "Transformer-XL": lambda heads, d: TransformerXL(n_heads=heads, d_head=d),
    "T5, both ways": lambda heads, d: T5(n_heads=heads, causal=False, n_buckets=8, max_distance=5),
    "T5, causal": lambda heads, d: T5(n_heads=heads, causal=True, n_buckets=6, max_distance=5),
    "RoPE": lambda heads, d: RoPE(d_head=d, layout="interleaved"),
    "RoPE, half-split": lambda heads, d: RoPE(d_head=d, layout="half-split"),
    "ALiBi": lambda heads, d: ALiBi(n_heads=heads),
}
positions = st.sampled_from(list(POSITIONS))


def moved(layer, dtype=torch.float64):
    """A layer whose parameters are all drawn: none is left at zero or one."""
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.to(dtype).eval()


def normal(*shape: int, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(dtype.is_floating_point)


def random_mask(share: float, *shape: int) -> Tensor:
    return torch.rand(shape) < share


def assert_finite_gradients(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    found = torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
    assert all(gradient.isfinite().all() for gradient in found)
    return found


@st.composite
def questions(draw, *, precision=dtypes):
    """Queries, keys, values, a bias or none, a mask or none: (leading, query or key, width)."""
    torch.manual_seed(draw(seeds))
    dtype = draw(precision)
    leading = [draw(few) for _ in range(draw(st.integers(0, 3)))]
    n_query, n_key, d_head, d_value = (draw(some) for _ in range(4))
    q = normal(*leading, n_query, d_head, dtype=dtype)
    k = normal(*leading, n_key, d_head, dtype=dtype)
    v = normal(*leading, n_key, d_value, dtype=dtype)
    shape = [*leading, n_query, n_key]

    def broadcast():
        return [size if draw(st.booleans()) else 1 for size in shape]

    mask = random_mask(draw(shares), *broadcast()) if draw(st.booleans()) else None
    bias = normal(*broadcast(), dtype=dtype) if draw(st.booleans()) else None
    return q, k, v, mask, bias


def by_hand(q, k, v, mask, bias):
    """Attention in double precision, one query after the other."""
    scores = q.double() @ k.double().transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores if bias is None else scores + bias.double()
    seen = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    weights = torch.zeros_like(scores)
    for i in range(scores[..., 0].numel()):
        row, may = scores.reshape(-1, scores.shape[-1])[i], seen.reshape(-1, scores.shape[-1])[i]
        if may.any():
            weights.view(-1, scores.shape[-1])[i, may] = row[may].softmax(-1)
    return weights @ v.double(), weights


# ---- attention --------------------------------------------------------------------------------


@tried
@given(questions())
def test_attention_by_hand_explicit_fused_and_pytorchs_are_one_function(drawn):
    q, k, v, mask, bias = drawn
    close = CLOSE[q.dtype]
    output, weights = explicit_attention(q, k, v, mask, bias=bias)
    fused = fused_attention(q, k, v, mask, bias=bias)
    assert output.dtype == fused.dtype == weights.dtype == q.dtype
    assert output.shape == fused.shape == (*q.shape[:-1], v.shape[-1])
    expected, expected_weights = by_hand(q, k, v, mask, bias)
    assert_close(weights.double(), expected_weights, **close)
    assert_close(output.double(), expected, **close)
    assert_close(fused.double(), expected, **close)
    some = (q.new_ones(weights.shape).bool() if mask is None else mask).any(-1, keepdim=True)
    added = q.new_zeros(1) if bias is None else bias
    if mask is not None:
        added = added.masked_fill(~mask, -torch.inf)
    kernel = F.scaled_dot_product_attention(q, k, v, added.expand_as(weights))
    assert_close(fused, kernel.nan_to_num().masked_fill(~some.expand_as(kernel), 0), **close)


@tried
@given(questions())
def test_weights_are_shares_of_what_may_be_seen(drawn):
    q, k, _, mask, _ = drawn
    scores = dot_product_scores(q, k)
    assert scores.dtype == q.dtype and scores.shape == (*q.shape[:-1], k.shape[-2])
    weights = softmax_weights(scores, mask)
    seen = torch.ones_like(weights).bool() if mask is None else mask.expand_as(weights)
    assert (weights >= 0).all() and not weights[~seen].any()
    assert_close(weights.double().sum(-1), seen.any(-1).double(), **CLOSE[q.dtype])
    far = softmax_weights(scores.detach() * 1e4, mask)  # one key takes all
    assert_close(far.double().sum(-1), seen.any(-1).double(), **CLOSE[q.dtype])


@tried
@given(questions())
def test_gradients_of_both_forms_are_finite_and_agree(drawn):
    q, k, v, mask, bias = drawn
    inputs = [x for x in (q, k, v, bias) if x is not None]
    explicit, _ = explicit_attention(q, k, v, mask, bias=bias)
    fused = fused_attention(q, k, v, mask, bias=bias)
    both = (assert_finite_gradients(output, *inputs) for output in (explicit, fused))
    for one, other in zip(*both, strict=True):
        if q.dtype != torch.bfloat16:
            assert_close(one, other, **CLOSE[q.dtype])
    if mask is not None:  # a query that sees nothing learns nothing
        blind = ~mask.any(-1, keepdim=True).expand(*q.shape[:-1], 1)
        assert not assert_finite_gradients(fused_attention(q, k, v, mask), q)[0][
            blind.expand_as(q)
        ].any()


@tried
@given(questions(precision=exact), seeds)
def test_permuting_keys_changes_nothing_permuting_queries_permutes(drawn, seed):
    q, k, v, mask, bias = drawn
    torch.manual_seed(seed)
    keys, queries = torch.randperm(k.shape[-2]), torch.randperm(q.shape[-2])

    def turned(x):
        if x is None:
            return None
        x = x[..., keys] if x.shape[-1] > 1 else x
        return x[..., queries, :] if x.shape[-2] > 1 else x

    for form in (lambda *given, **more: explicit_attention(*given, **more)[0], fused_attention):
        expected = form(q, k, v, mask, bias=bias)[..., queries, :]
        found = form(
            q[..., queries, :], k[..., keys, :], v[..., keys, :], turned(mask), bias=turned(bias)
        )
        assert_close(found, expected, **CLOSE[q.dtype])


@tried
@given(questions(precision=exact), seeds)
def test_what_is_hidden_changes_nothing(drawn, seed):
    q, k, v, mask, _ = drawn
    torch.manual_seed(seed)
    hidden = random_mask(0.5, k.shape[-2])
    mask = (torch.ones(1, 1).bool() if mask is None else mask).expand(*q.shape[:-1], k.shape[-2])
    mask = mask & ~hidden
    other_k, other_v = k.clone(), v.clone()
    other_k[..., hidden, :], other_v[..., hidden, :] = 7.0, -7.0
    assert torch.equal(
        explicit_attention(q, k, v, mask)[0], explicit_attention(q, other_k, other_v, mask)[0]
    )
    assert torch.equal(fused_attention(q, k, v, mask), fused_attention(q, other_k, other_v, mask))


@tried
@given(few, some, some, some, some, dtypes, seeds)
def test_additive_scores_are_those_of_the_formula(batch, n_query, n_key, d_query, d_key, dtype, n):
    torch.manual_seed(n)
    layer = moved(AdditiveScores(d_query=d_query, d_key=d_key, d_hidden=5), dtype)
    q, k = normal(batch, n_query, d_query, dtype=dtype), normal(batch, n_key, d_key, dtype=dtype)
    scores = layer(q, k)
    assert scores.dtype == dtype and scores.shape == (batch, n_query, n_key)
    u, w = layer.k_proj.weight.double(), layer.q_proj.weight.double()
    hidden = (q.double() @ w.T)[:, :, None] + (k.double() @ u.T)[:, None]
    assert_close(scores.double(), hidden.tanh() @ layer.v.weight[0].double(), **CLOSE[dtype])
    assert_finite_gradients(scores, q, k)


@st.composite
def attentions(draw, *, precision=dtypes):
    """A many-headed attention with any method of positions, and vectors for it."""
    torch.manual_seed(draw(seeds))
    heads, half, batch, seq, dtype = draw(few), draw(few), draw(few), draw(some), draw(precision)
    position = POSITIONS[draw(positions)](heads, 2 * half)
    d_model = 2 * heads * half
    layer = moved(MultiHeadAttention(d_model=d_model, n_heads=heads, position=position), dtype)
    return layer, normal(batch, seq, d_model, dtype=dtype)


@tried
@given(attentions(), shares)
def test_many_heads_give_the_same_with_weights_and_without(drawn, share):
    layer, x = drawn
    batch, seq, _ = x.shape
    mask = random_mask(share, batch, layer.n_heads, seq, seq)
    output, none = layer(x, mask=mask)
    explicit, weights = layer(x, mask=mask, need_weights=True)
    assert none is None and output.shape == x.shape and output.dtype == x.dtype
    assert weights.shape == mask.shape and weights.dtype == x.dtype
    assert not weights[~mask].any()
    assert_close(output, explicit, **CLOSE[x.dtype])
    blind = ~mask.any(-1).any(1)  # for all heads
    bias = layer.out_proj.bias.expand_as(output)
    assert torch.equal(explicit[blind], bias[blind]) and torch.equal(output[blind], bias[blind])
    assert_finite_gradients(output, x, *layer.parameters())


@tried
@given(attentions(precision=exact), st.data())
def test_no_method_of_positions_looks_ahead_of_a_causal_mask(drawn, data):
    layer, x = drawn
    seq = x.shape[1]
    place = data.draw(st.integers(0, seq - 1))
    other = x.detach().clone()
    other[:, place:] = torch.randn_like(other[:, place:])
    for need_weights in (False, True):
        before, after = (
            layer(one, mask=causal_mask(seq), need_weights=need_weights)[0][:, :place]
            for one in (x, other)
        )
        assert torch.equal(before, after)


@tried
@given(attentions(precision=exact), st.integers(0, 3))
def test_padding_changes_nothing_whatever_stands_in_it(drawn, more):
    layer, x = drawn
    batch, seq, _ = x.shape
    lengths = torch.randint(1, seq + 1, (batch,))
    longer = torch.cat([x.detach(), torch.full_like(x[:, :1], 9.0).expand(-1, more, -1)], 1)
    found, _ = layer(longer, mask=padding_mask(lengths, seq + more))
    for row, length in enumerate(lengths.tolist()):
        alone, _ = layer(x[row : row + 1, :length])
        assert_close(found[row, :length], alone[0], **CLOSE[x.dtype])


@tried
@given(few, few, few, some, dtypes, shares, seeds)
def test_many_heads_are_separate_heads_and_pytorchs(heads, half, batch, seq, dtype, share, seed):
    torch.manual_seed(seed)
    d_model = 2 * heads * half
    layer = moved(MultiHeadAttention(d_model=d_model, n_heads=heads), dtype)
    x = normal(batch, seq, d_model, dtype=dtype)
    mask = random_mask(share, batch, heads, seq, seq)
    output, _ = layer(x, mask=mask)
    assert_close(SeparateHeads.split(layer)(x, mask=mask), output, **CLOSE[dtype])
    theirs = torch.nn.MultiheadAttention(d_model, heads, batch_first=True, dtype=dtype)
    parts = [layer.q_proj, layer.k_proj, layer.v_proj]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(layer.out_proj.state_dict())
    mask = mask | torch.eye(seq, dtype=torch.bool)  # theirs gives NaN where nothing is seen
    expected, _ = theirs(x, x, x, attn_mask=forbidden(mask).flatten(0, 1))
    assert_close(layer(x, mask=mask)[0], expected, **CLOSE[dtype])


@tried
@given(few, some, some, some, dtypes, shares, seeds)
def test_one_head_gives_the_same_with_weights_and_without(batch, seq, d_model, d, dtype, share, n):
    torch.manual_seed(n)
    layer = moved(SelfAttention(d_model=d_model, d_head=d), dtype)
    x, mask = normal(batch, seq, d_model, dtype=dtype), random_mask(share, batch, seq, seq)
    (output, _), (explicit, weights) = layer(x, mask=mask), layer(x, mask=mask, need_weights=True)
    assert output.shape == (batch, seq, d) and weights.shape == mask.shape
    assert output.dtype == weights.dtype == dtype
    assert_close(output, explicit, **CLOSE[dtype])
    order = torch.randperm(seq)
    found, _ = layer(x[:, order], mask=mask[:, order][:, :, order])
    assert_close(found, output[:, order], **CLOSE[dtype])
    assert_finite_gradients(output, x)


# ---- positions --------------------------------------------------------------------------------


@tried
@given(st.integers(1, 300), st.integers(1, 20), st.data())
def test_sinusoids_compare_places_by_their_distance_alone(max_len, half, data):
    table = sinusoids(max_len, 2 * half)
    assert table.shape == (max_len, 2 * half) and table.dtype == torch.float32
    i, j, steps = (data.draw(st.integers(0, max_len - 1)) for _ in range(3))
    steps = min(steps, max_len - 1 - max(i, j))
    assert_close(table[i] @ table[j], table[i + steps] @ table[j + steps], atol=1e-4, rtol=0)
    assert_close(table.square().sum(-1), torch.full((max_len,), float(half)))
    assert torch.equal(sinusoids(i + 1, 2 * half), table[: i + 1])


@tried
@given(few, some, few, dtypes, seeds)
def test_a_vector_gets_that_of_its_place_whatever_the_length(batch, seq, half, dtype, seed):
    torch.manual_seed(seed)
    x = normal(batch, seq, 2 * half, dtype=dtype)
    sizes = {"d_model": 2 * half, "max_len": seq + 1}
    for layer in (SinusoidalPositions(**sizes), LearnedPositions(**sizes)):
        output = layer(x)
        assert output.shape == x.shape and output.dtype == dtype
        assert torch.equal(output, x + layer.table[:seq].to(dtype))
        assert torch.equal(layer(x[:, :1]), output[:, :1])
        assert_finite_gradients(output, x)
    output = OneHotPositions(max_len=seq + 1)(x)
    assert output.shape == (batch, seq, 2 * half + seq + 1) and output.dtype == dtype
    assert torch.equal(output[..., : 2 * half], x)
    assert torch.equal(output[0, :, 2 * half :].argmax(-1), torch.arange(seq))
    assert torch.equal(output[..., 2 * half :].sum(-1), torch.ones_like(x[..., 0]))


@tried
@given(positions.filter(lambda name: name != "none"), few, few, some, dtypes, seeds)
def test_the_last_queries_alone_get_what_they_get_among_all(name, heads, half, seq, dtype, seed):
    torch.manual_seed(seed)
    position = moved(POSITIONS[name](heads, 2 * half), dtype)
    q, k = (normal(2, heads, seq, 2 * half, dtype=dtype) for _ in range(2))
    last = slice(seq // 2, None)  # one at least
    for one, other in zip(position.rotate(q, k), position.rotate(q[:, :, last], k), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one[:, :, -other.shape[2] :], other)
    bias = position.bias(q, k)
    if bias is not None:
        assert bias.dtype == dtype and bias.shape[1:] == (heads, seq, seq)
        assert_close(position.bias(q[:, :, last], k), bias[:, :, last], **CLOSE[dtype])
        if bias.requires_grad:
            assert_finite_gradients(bias, *(p for p in position.parameters() if p.requires_grad))
    weights = softmax_weights(normal(2, heads, seq, seq, dtype=dtype))
    extra = position.extra(weights)
    if extra is not None:
        assert extra.dtype == dtype and extra.shape == q.shape
        assert_close(position.extra(weights[:, :, last]), extra[:, :, last], **CLOSE[dtype])


@tried
@given(st.sampled_from(["Shaw, keys alone", "T5, both ways", "ALiBi"]), few, few, some, seeds)
def test_equal_queries_are_told_nothing_but_the_distance(name, heads, half, seq, seed):
    torch.manual_seed(seed)
    position = moved(POSITIONS[name](heads, 2 * half))
    q, k = (normal(1, heads, 1, 2 * half).expand(-1, -1, seq, -1) for _ in range(2))
    bias = position.bias(q, k)
    for distance in range(1 - seq, seq):
        line = bias.diagonal(distance, -2, -1)
        assert_close(line, line[..., :1].expand_as(line))


@tried
@given(some, some, st.integers(0, 500), exact, seeds)
def test_rope_turns_without_stretching_and_compares_by_distance(half, seq, steps, dtype, seed):
    torch.manual_seed(seed)
    x, y = (normal(seq, 2 * half, dtype=dtype) for _ in range(2))
    place, order = torch.arange(seq), to_half_split(2 * half)
    turned = {}
    for layout in ("interleaved", "half-split"):
        rope = RoPE(d_head=2 * half, layout=layout)
        turned[layout] = rope.turn(x if layout == "interleaved" else x[:, order], place)
        assert turned[layout].dtype == dtype and turned[layout].shape == x.shape
        assert_close(turned[layout].norm(dim=-1), x.norm(dim=-1), **CLOSE[dtype])
        scores = rope.turn(x, place) @ rope.turn(y, place).T
        later = rope.turn(x, place + steps) @ rope.turn(y, place + steps).T
        assert_close(later, scores, atol=1e-4, rtol=1e-4)
    assert_close(turned["interleaved"][:, order], turned["half-split"])
    assert_finite_gradients(turned["half-split"], x)


@tried
@given(some, st.integers(0, 9), st.integers(2, 9), st.integers(1, 40), st.booleans())
def test_offsets_and_buckets_are_sorted_by_distance(n_query, more, half, beyond, causal):
    steps = offsets(n_query, n_query + more)
    assert steps.shape == (n_query, n_query + more)
    assert steps[-1, -1] == 0 and (steps.diff(dim=1) == 1).all() and (steps.diff(dim=0) == -1).all()
    back = -torch.arange(0, 100)
    rows = buckets(back, 2 * half, half + beyond, causal=causal)
    assert rows[0] == 0 and (rows.diff() >= 0).all() and (rows.diff() <= half + beyond).all()
    assert rows.max() == (2 * half if causal else half) - 1
    ahead = buckets(-back, 2 * half, half + beyond, causal=causal)
    assert torch.equal(ahead, 0 * rows if causal else torch.where(back == 0, 0, rows + half))


@tried
@given(some, st.integers(0, 5), seeds)
def test_shift_picks_the_column_of_each_distance(n_query, more, seed):
    torch.manual_seed(seed)
    n_key = n_query + more
    x = normal(2, n_query, n_query + n_key - 1)
    expected = torch.stack(
        [x[:, i, n_query - 1 - i : n_query - 1 - i + n_key] for i in range(n_query)], 1
    )
    assert torch.equal(shift(x), expected)


@tried
@given(st.integers(1, 40))
def test_slopes_lie_between_0_and_1_and_differ(n_heads):
    found = slopes(n_heads)
    assert found.shape == (n_heads,) and ((found > 0) & (found < 1)).all()
    assert len(set(found.tolist())) == n_heads


# ---- masks ------------------------------------------------------------------------------------


@tried
@given(some, st.integers(0, 9), st.lists(st.integers(0, 7), min_size=1, max_size=4))
def test_masks_say_what_their_names_say(seq, window, lengths):
    lengths = torch.tensor(lengths).clamp(max=seq)
    near, past, real = local_mask(seq, window), causal_mask(seq), padding_mask(lengths, seq)
    joined = near & past & real
    assert near.shape == past.shape == (1, 1, seq, seq) and real.shape == (len(lengths), 1, 1, seq)
    assert joined.dtype == torch.bool
    for row, length in enumerate(lengths.tolist()):
        for i in range(seq):
            for j in range(seq):
                assert joined[row, 0, i, j] == (abs(i - j) <= window and j <= i and j < length)


@tried
@given(questions())
def test_a_mask_survives_its_other_forms(drawn):
    q, k, v, mask, _ = drawn
    mask = torch.ones(*q.shape[:-1], k.shape[-2]).bool() if mask is None else mask
    assert torch.equal(forbidden(forbidden(mask)), mask)
    assert not (forbidden(mask) & mask).any() and (forbidden(mask) | mask).all()
    additive = to_additive(mask, q.dtype)
    assert additive.dtype == q.dtype and additive.shape == mask.shape
    assert torch.equal(from_additive(additive), mask)
    assert torch.equal(from_additive(additive.clamp(min=-10_000)), mask)
    seeing = mask.any(-1, keepdim=True)
    added = fused_attention(q, k, v, bias=additive.masked_fill(~seeing, 0))
    masked = fused_attention(q, k, v, mask)
    expected = masked.where(seeing.expand_as(masked), added)
    assert_close(added, expected, **CLOSE[q.dtype])


# ---- norm, block, stack -----------------------------------------------------------------------


@tried
@given(st.lists(few, max_size=2), some, dtypes, st.sampled_from([0.0, 1e-3, 1.0, 1e3]), seeds)
def test_layer_norm_gives_mean_0_and_variance_1(leading, d_model, dtype, size, seed):
    torch.manual_seed(seed)
    layer = LayerNorm(d_model=d_model).to(dtype)
    x = (normal(*leading, d_model, dtype=dtype) * size).detach().requires_grad_()
    output = layer(x)
    assert output.shape == x.shape and output.dtype == dtype
    wide = x.double()
    spread = (wide - wide.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
    expected = (wide - wide.mean(-1, keepdim=True)) / (spread + layer.eps).sqrt()
    assert_close(output.double(), expected, **CLOSE[dtype])
    assert_close(output, F.layer_norm(x, (d_model,), eps=layer.eps), **CLOSE[dtype])
    assert_finite_gradients(output, x, layer.gain, layer.bias)
    other = moved(LayerNorm(d_model=d_model), dtype)
    assert_close(other(x), output * other.gain + other.bias, **CLOSE[dtype])


@st.composite
def stacks(draw):
    """A block or a stack of blocks, and vectors for it."""
    torch.manual_seed(draw(seeds))
    heads, half, batch, seq, dtype = draw(few), draw(few), draw(few), draw(some), draw(dtypes)
    d_model, norm_first, name = 2 * heads * half, draw(st.booleans()), draw(positions)
    if draw(st.booleans()):
        position = POSITIONS[name](heads, 2 * half)
        layer = Block(
            attention=MultiHeadAttention(d_model=d_model, n_heads=heads, position=position),
            feed_forward=FeedForward(d_model=d_model, d_ff=5),
            d_model=d_model,
            norm_first=norm_first,
        )
    else:
        layer = Encoder(
            n_layers=2,
            d_model=d_model,
            n_heads=heads,
            d_ff=5,
            norm_first=norm_first,
            position=lambda: POSITIONS[name](heads, 2 * half),
        )
    return layer.to(dtype).eval(), normal(batch, seq, d_model, dtype=dtype)


@tried
@given(stacks(), st.data())
def test_blocks_keep_shapes_the_past_and_what_is_no_padding(drawn, data):
    layer, x = drawn
    batch, seq, _ = x.shape
    output, _ = layer(x, mask=causal_mask(seq))
    assert output.shape == x.shape and output.dtype == x.dtype
    assert_finite_gradients(output, x, *(p for p in layer.parameters() if p.requires_grad))
    place = data.draw(st.integers(0, seq - 1))
    other = x.detach().clone()
    other[:, place:] = torch.randn_like(other[:, place:])
    if x.dtype != torch.bfloat16:
        assert torch.equal(layer(other, mask=causal_mask(seq))[0][:, :place], output[:, :place])
    lengths = torch.randint(0, seq + 1, (batch,))
    padded, _ = layer(x, mask=padding_mask(lengths, seq))
    assert padded.isfinite().all()  # where there is nothing to see, too
    for row, length in enumerate(lengths.tolist()):
        if length:
            alone, _ = layer(x[row : row + 1, :length])
            assert_close(padded[row, :length], alone[0], **CLOSE[x.dtype])


@tried
@given(few, some, some, dtypes, seeds)
def test_pooling_sees_real_places_only(batch, seq, d_model, dtype, seed):
    torch.manual_seed(seed)
    x, lengths = normal(batch, seq, d_model, dtype=dtype), torch.randint(1, seq + 1, (batch,))
    mean = mean_pool(x, lengths)
    assert mean.dtype == dtype and mean.shape == (batch, d_model)
    with_token, longer = moved(SummaryToken(d_model=d_model), dtype)(x, lengths)
    assert with_token.dtype == dtype and with_token.shape == (batch, seq + 1, d_model)
    assert torch.equal(with_token[:, 1:], x) and torch.equal(longer, lengths + 1)
    for row, length in enumerate(lengths.tolist()):
        expected = x[row, :length].double().mean(0)
        assert_close(mean[row].double(), expected, **CLOSE[dtype])
    assert_finite_gradients(mean, x)


# ---- attention that leaves out ----------------------------------------------------------------


@tried
@given(few, few, some, some, some, st.integers(0, 9), dtypes, shares, seeds)
def test_windows_are_what_a_mask_would_leave(batch, heads, seq, d, d_value, window, dtype, s, n):
    torch.manual_seed(n)
    q, k = (normal(batch, heads, seq, d, dtype=dtype) for _ in range(2))
    v = normal(batch, heads, seq, d_value, dtype=dtype)
    mask = random_mask(s, batch, 1, 1, seq)
    found = windowed_attention(q, k, v, window=window, mask=mask)
    assert found.dtype == dtype
    expected = fused_attention(q, k, v, local_mask(seq, window) & mask)
    assert_close(found, expected, **CLOSE[dtype])
    assert_finite_gradients(found, q, k, v)
    layer = moved(WindowedAttention(d_model=2 * heads, n_heads=heads, window=window), dtype)
    x = normal(batch, seq, 2 * heads, dtype=dtype)
    whole = moved(MultiHeadAttention(d_model=2 * heads, n_heads=heads), dtype)
    whole.load_state_dict(layer.state_dict())
    expected, _ = whole(x, mask=local_mask(seq, window) & mask)
    assert_close(layer(x, mask=mask)[0], expected, **CLOSE[dtype])


@tried
@given(some, few, few, some, exact, shares, seeds)
def test_edges_are_what_a_mask_would_leave(nodes, heads, d_head, d_in, dtype, share, seed):
    torch.manual_seed(seed)
    mask = random_mask(share, nodes, nodes)
    edges = edges_of(mask)
    scores = normal(heads, nodes, nodes, dtype=dtype)
    weights = edge_softmax(scores[:, mask].T, edges[0], nodes)
    expected = softmax_weights(scores, mask.expand_as(scores))[:, mask].T
    assert weights.dtype == dtype
    assert_close(weights, expected, **CLOSE[dtype])
    layer = moved(GraphAttention(d_in=d_in, d_head=d_head, n_heads=heads), dtype)
    x, order = normal(nodes, d_in, dtype=dtype), torch.randperm(nodes)
    output, _ = layer(x, edges)
    assert output.shape == (nodes, heads, d_head) and output.dtype == dtype
    assert not output[~mask.any(-1)].any()
    found, _ = layer(x[order], edges_of(mask[order][:, order]))
    assert_close(found, output[order], **CLOSE[dtype])
    assert_finite_gradients(output, x)


# ---- decoding ---------------------------------------------------------------------------------


@tried
@given(few, st.integers(1, 9), dtypes, st.floats(0.1, 10), st.integers(1, 12), st.floats(0.01, 1))
def test_truncation_keeps_the_likeliest(batch, size, dtype, temperature, top_k, top_p):
    logits = torch.randn(batch, size, dtype=torch.float64).to(dtype)
    found = truncate(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert found.shape == logits.shape and found.dtype == dtype
    kept = found > -torch.inf
    assert torch.equal(found[kept], (logits / temperature)[kept])
    best = logits.argmax(-1, keepdim=True)
    assert kept.gather(1, best).all() and (kept.sum(-1) <= top_k).all()
    for row, stays in zip(logits, kept, strict=True):
        if not stays.all():  # nothing that falls away is likelier than what stays
            assert row[~stays].max() <= row[stays].min()
    probs = (found.double()).softmax(-1)
    assert_close(probs.sum(-1), torch.ones(batch, dtype=torch.float64))
    assert torch.equal(truncate(logits), logits)


@st.composite
def writers(draw):
    """A model of random weights, with any method of positions, and sources with padding."""
    torch.manual_seed(draw(seeds))
    heads, half, batch, seq = draw(few), draw(few), draw(few), draw(some)
    name, dtype = draw(positions), draw(exact)
    sizes = Settings(
        source_size=9,
        target_size=draw(st.integers(4, 9)),
        d_model=2 * heads * half,
        n_heads=heads,
        n_layers=draw(few),
        d_ff=5,
        dropout=0.5,
        norm_first=draw(st.booleans()),
        max_len=8,
    )
    position = None if name == "none" else lambda: POSITIONS[name](heads, 2 * half)
    model = EncoderDecoder(sizes, position=position).to(dtype).eval()
    source = torch.randint(3, 9, (batch, seq))
    lengths = torch.randint(1, seq + 1, (batch,))
    return model, source.masked_fill(torch.arange(seq) >= lengths[:, None], PAD_ID)


def log_probs_of(model, source, tokens, stopped):
    """What the model gives to a whole answer, all places in one pass."""
    shown = torch.tensor([[BEGIN_ID, *tokens.tolist()]])
    logits = model(source[None], shown)[0]
    logits[:, [PAD_ID, BEGIN_ID]] = logits[:, [PAD_ID, BEGIN_ID]] - 0  # they count in the sum
    asked = torch.tensor([*tokens.tolist(), *([STOP_ID] if stopped else [])])
    return logits[: len(asked)].log_softmax(-1).gather(-1, asked[:, None])[:, 0]


@tried
@given(writers(), st.integers(1, 8))
@torch.no_grad()
def test_greedy_writes_what_the_model_finds_likeliest_in_one_pass(drawn, max_len):
    model, source = drawn
    close = {"atol": 1e-4, "rtol": 1e-4}
    found = greedy(model, source, max_len=max_len)
    padded = F.pad(source, (0, 1))
    order = torch.randperm(len(source))
    assert len(found) == len(source)
    for one, other in zip(found, greedy(model, padded, max_len=max_len), strict=True):
        assert torch.equal(one.tokens, other.tokens)
    moved_along = greedy(model, source[order], max_len=max_len)
    assert [one.tokens.tolist() for one in moved_along] == [found[i].tokens.tolist() for i in order]
    for row, one in zip(source, found, strict=True):
        assert len(one.tokens) <= max_len and (one.tokens > STOP_ID).all()
        assert one.stopped or len(one.tokens) == max_len
        expected = log_probs_of(model, row, one.tokens, one.stopped)
        assert_close(one.log_probs.double(), expected.double(), **close)
        logits = model(row[None], torch.tensor([[BEGIN_ID, *one.tokens.tolist()]]))[0]
        likeliest = logits[:, STOP_ID:].argmax(-1) + STOP_ID
        written = [*one.tokens.tolist(), *([STOP_ID] if one.stopped else [])]
        assert likeliest.tolist()[: len(written)] == written


@tried
@given(writers(), st.integers(1, 8), seeds)
@torch.no_grad()
def test_one_beam_and_a_cold_sample_are_greedy(drawn, max_len, seed):
    model, source = drawn
    expected = [one.tokens.tolist() for one in greedy(model, source, max_len=max_len)]
    beams = beam(model, source, n_beams=1, max_len=max_len)
    assert [one[0].tokens.tolist() for one in beams] == expected
    generator = torch.Generator().manual_seed(seed)
    for cold in ({"top_k": 1}, {"temperature": 1e-6}, {"top_p": 1e-6}):
        drawn = sample(model, source, max_len=max_len, generator=generator, **cold)
        assert [one.tokens.tolist() for one in drawn] == expected


@tried
@given(writers(), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.6, 1.0]))
@torch.no_grad()
def test_beams_are_sorted_differ_and_have_the_models_probabilities(drawn, n_beams, max_len, alpha):
    model, source = drawn
    for row, ranked in zip(
        source, beam(model, source, n_beams=n_beams, max_len=max_len, alpha=alpha), strict=True
    ):
        assert 1 <= len(ranked) <= n_beams
        assert all(a.score(alpha) >= b.score(alpha) for a, b in pairwise(ranked))
        assert len({(*one.tokens.tolist(), one.stopped) for one in ranked}) == len(ranked)
        for one in ranked:
            expected = log_probs_of(model, row, one.tokens, one.stopped)
            assert_close(one.log_probs.double(), expected.double(), atol=1e-4, rtol=1e-4)


@tried
@given(writers(), st.integers(1, 8))
@torch.no_grad()
def test_step_by_step_scores_what_one_pass_scores(drawn, seq):
    model, source = drawn
    target = torch.randint(3, model.settings.target_size, (len(source), seq))
    target[:, 0] = BEGIN_ID
    state = model.start(source, seq)
    steps = torch.stack([model.step(column, state) for column in target.unbind(1)], 1)
    assert_close(steps, model(source, target), atol=1e-4, rtol=1e-4)


letters = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


def distance(a, b):
    """How many symbols to insert, delete or replace: the textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@tried
@given(st.lists(st.tuples(st.lists(st.sampled_from("abc"), max_size=5), letters), min_size=1))
def test_error_rates_count_edits(pairs):
    answers, references = [a for a, _ in pairs], [[b] for _, b in pairs]
    words, symbols = error_rates(answers, references)
    edits = [distance(a, b) for a, b in pairs]
    assert words == sum(edit > 0 for edit in edits) / len(pairs)
    assert symbols == pytest.approx(sum(edits) / sum(len(b) for _, b in pairs))
    assert error_rates(answers, [[a or ["x"], b] for a, b in pairs])[0] <= words
