import math

import pytest
import torch
from einops import rearrange
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BloomConfig,
    GPTJConfig,
    LlamaConfig,
    T5Config,
    Wav2Vec2BertConfig,
    XLNetConfig,
)
from transformers.models.bloom import modeling_bloom
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from transformer_lit.attention import explicit_attention, fused_attention
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.relative_positions import (
    T5,
    ALiBi,
    RelativePosition,
    RoPE,
    Shaw,
    TransformerXL,
    buckets,
    offsets,
    shift,
    slopes,
    to_half_split,
)

# Sizes are different primes, but for the width of a head, which RoPE needs even.
BATCH, HEADS, QUERY, SEQ, D_HEAD = 2, 3, 5, 7, 22
D_MODEL = HEADS * D_HEAD
CLIP, BUCKETS, FURTHEST = 2, 6, 5

METHODS = {
    "Shaw": lambda: Shaw(d_head=D_HEAD, clip=CLIP),
    "Shaw, keys only": lambda: Shaw(d_head=D_HEAD, clip=CLIP, values=False),
    "Transformer-XL": lambda: TransformerXL(n_heads=HEADS, d_head=D_HEAD),
    "T5": lambda: T5(n_heads=HEADS, causal=False, n_buckets=BUCKETS, max_distance=FURTHEST),
    "T5, causal": lambda: T5(n_heads=HEADS, causal=True, n_buckets=BUCKETS, max_distance=FURTHEST),
    "RoPE, interleaved": lambda: RoPE(d_head=D_HEAD, layout="interleaved"),
    "RoPE, half-split": lambda: RoPE(d_head=D_HEAD, layout="half-split"),
    "ALiBi": lambda: ALiBi(n_heads=HEADS),
}
every = pytest.mark.parametrize("name", METHODS)
FUSED = [name for name in METHODS if name != "Shaw"]
LAYOUTS = ["interleaved", "half-split"]


def make(name: str) -> RelativePosition:
    """The method with random weights, also where its own start at zero."""
    position = METHODS[name]()
    for parameter in position.parameters():
        torch.nn.init.normal_(parameter)
    return position


def qkv(query=SEQ, **options):
    return (
        torch.randn(BATCH, HEADS, query, D_HEAD, **options),
        torch.randn(BATCH, HEADS, SEQ, D_HEAD, **options),
        torch.randn(BATCH, HEADS, SEQ, D_HEAD, **options),
    )


def attend(position, q, k, v, mask=None, form="explicit"):
    """Attention with all three hooks, as ``MultiHeadAttention`` calls them."""
    q, k = position.rotate(q, k)
    bias = position.bias(q, k)
    if form == "fused":
        return fused_attention(q, k, v, mask, bias=bias)
    output, weights = explicit_attention(q, k, v, mask, bias=bias)
    extra = position.extra(weights)
    return output if extra is None else output + extra


def scores(position, q, k):
    q, k = position.rotate(q, k)
    bias = position.bias(q, k)
    products = q @ k.transpose(-2, -1) / D_HEAD**0.5
    return products if bias is None else products + bias


def causal(query=SEQ):
    return torch.ones(query, SEQ, dtype=torch.bool).tril(SEQ - query)[None, None]


# ---- hand-computed values


def test_offsets_by_hand():
    assert offsets(3, 3).tolist() == [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]
    assert offsets(1, 3).tolist() == [[-2, -1, 0]]  # one query, at the last place


def test_shaw_by_hand():
    position = Shaw(d_head=1, clip=1)
    with torch.no_grad():
        position.keys.copy_(torch.tensor([[2.0], [3.0], [5.0]]))  # before, itself, behind
        position.values.copy_(torch.tensor([[10.0], [100.0], [1000.0]]))
    q = torch.tensor([1.0, 10, 100])[None, None, :, None]
    assert position.bias(q, q)[0, 0].tolist() == [[3, 5, 5], [20, 30, 50], [200, 200, 300]]
    weights = torch.tensor([[[[0.5, 0.25, 0.25], [0.0, 1, 0], [0.25, 0.25, 0.5]]]])
    assert position.extra(weights).flatten().tolist() == [50 + 500, 100, 5 + 50]


def test_transformer_xl_by_hand():
    """One head of width two, whose frequency is 1: R of distance t is (sin t, cos t)."""
    position = TransformerXL(n_heads=1, d_head=2)
    with torch.no_grad():
        position.proj.weight.copy_(torch.eye(2))
        position.u.copy_(torch.tensor([0.0, 7.0]))
        position.v.copy_(torch.tensor([1.0, 0.0]))
    q, k = torch.tensor([[[[0.0, 2], [0, 3]]]]), torch.tensor([[[[0.0, 1], [0, 10]]]])
    s, c = math.sin(1), math.cos(1)
    # u k is 7 and 70; (q + v) R is sin t + 2 cos t in the first row, sin t + 3 cos t in the second
    expected = [[7 + 2, 70 - s + 2 * c], [7 + s + 3 * c, 70 + 3]]
    assert_close(position.bias(q, k)[0, 0], torch.tensor(expected) / math.sqrt(2))


def test_shift_by_hand():
    # two queries, three keys: distances 2 1 0 -1 of the last query, from its first column on
    x = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]])
    assert shift(x.float()).tolist() == [[11, 12, 13], [20, 21, 22]]


def test_buckets_by_hand():
    # 4 buckets back: 0, 1, then [2, 4) and, 2 + log2(4 / 2) / log2(8 / 2) * 2 = 3, from 4 on
    past = -torch.arange(10)
    assert buckets(past, 4, 8, causal=True).tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert buckets(torch.arange(1, 4), 4, 8, causal=True).tolist() == [0, 0, 0]  # never seen
    # 3 buckets back: 0, 1, and 1 + log(2) / log(3) * 2 = 2.26 is the last
    assert buckets(past[:4], 3, 3, causal=True).tolist() == [0, 1, 2, 2]
    assert buckets(past, 8, 8, causal=False).tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert buckets(-past, 8, 8, causal=False).tolist() == [0, 5, 6, 6, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rope_turns_by_hand(layout):
    """At place 1 the first pair, (1, 0), turns by 1 radian, the second, (0, 1), by 0.01."""
    first, second = (math.cos(1), math.sin(1)), (-math.sin(0.01), math.cos(0.01))
    if layout == "interleaved":
        x, expected = [1.0, 0, 0, 1], [*first, *second]
    else:
        x, expected = [1.0, 0, 0, 1], [first[0], second[0], first[1], second[1]]
    x = torch.tensor([[0.0, 0, 0, 0], x])
    found = RoPE(d_head=4, layout=layout).turn(x, torch.arange(2))
    assert_close(found, torch.tensor([[0.0, 0, 0, 0], expected]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rope_turns_heads_of_a_single_pair_by_hand(layout):
    x = torch.tensor([[1.0, 0]]).expand(1, 1, 2, 2)
    expected = torch.tensor([[1.0, 0], [math.cos(1), math.sin(1)]])
    assert_close(RoPE(d_head=2, layout=layout).rotate(x, x)[1][0, 0], expected)


@pytest.mark.parametrize(
    ("n_heads", "exponents"),
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_by_hand(n_heads, exponents):
    assert_close(slopes(n_heads), 2.0 ** -torch.tensor(exponents, dtype=torch.float))


def test_alibi_by_hand():
    q = torch.zeros(1, 2, 3, 1)
    bias = ALiBi(n_heads=2).bias(q, q)
    assert (16 * bias[0, 0]).tolist() == [[0, -1, -2], [-1, 0, -1], [-2, -1, 0]]
    assert (256 * bias[0, 1]).tolist() == [[0, -1, -2], [-1, 0, -1], [-2, -1, 0]]


# ---- properties


@every
def test_the_score_depends_on_the_difference_only(name):
    """The same query and the same key everywhere: all diagonals of the scores are constant."""
    q, k, _ = (x[:, :, :1].expand(-1, -1, SEQ, -1) for x in qkv())
    found = scores(make(name), q, k)
    assert_close(found[..., 1:, 1:], found[..., :-1, :-1], atol=1e-5, rtol=0)
    assert not torch.allclose(found[..., 0, 0], found[..., -1, 0], atol=1e-2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rope_is_the_same_anywhere_in_a_long_text(layout):
    position = RoPE(d_head=D_HEAD, layout=layout)
    q, k, _ = qkv()
    place = torch.arange(SEQ)
    near = position.turn(q, place) @ position.turn(k, place).transpose(-2, -1)
    far = position.turn(q, place + 10_000) @ position.turn(k, place + 10_000).transpose(-2, -1)
    assert_close(near, far, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rope_turns_by_the_right_angle_far_out(layout):
    """Each pair is (1, 0), so that it becomes the cosine and the sine of its angle."""
    place = 100_003
    angles = [place * 10_000 ** (-2 * i / D_HEAD) for i in range(D_HEAD // 2)]
    expected = torch.tensor([f(a) for a in angles for f in (math.cos, math.sin)])
    order = torch.arange(D_HEAD) if layout == "interleaved" else to_half_split(D_HEAD)
    x = torch.tensor([1.0, 0]).repeat(D_HEAD // 2)[order]
    found = RoPE(d_head=D_HEAD, layout=layout).turn(x[None], torch.tensor([place]))
    assert_close(found[0], expected[order])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rope_keeps_norms(layout):
    q, k, _ = qkv()
    for before, after in zip((q, k), RoPE(d_head=D_HEAD, layout=layout).rotate(q, k), strict=True):
        assert_close(after.norm(dim=-1), before.norm(dim=-1))
        assert not torch.allclose(after, before, atol=0.1)


def test_shaw_tells_distances_apart_up_to_the_clip_and_no_further():
    q, k, _ = (x[:, :, :1].expand(-1, -1, SEQ, -1) for x in qkv())
    last = scores(make("Shaw"), q, k)[..., -1, :]  # distances SEQ - 1 .. 0
    assert_close(last[..., : SEQ - CLIP], last[..., :1].expand(-1, -1, SEQ - CLIP))
    steps = last[..., SEQ - CLIP - 1 :].diff(dim=-1)
    assert (steps.abs() > 1e-3).all()


def test_near_buckets_hold_one_distance_each_and_far_ones_more_and_more():
    found = buckets(-torch.arange(200), 32, 128, causal=True)
    assert found[:16].tolist() == list(range(16))
    assert (found.diff() >= 0).all() and found[-1] == 31 and found[128] == 31
    sizes = found[16:128].bincount()[16:-1].float()
    assert (sizes > 1).all() and sizes[-5:].mean() > 3 * sizes[:5].mean()


@pytest.mark.parametrize("n_heads", [1, 2, 4, 8, 16, 32])
def test_slopes_of_a_power_of_two_are_one_geometric_row_down_to_two_to_the_minus_eight(n_heads):
    found = slopes(n_heads)
    assert_close(found[1:] / found[:-1], torch.full((n_heads - 1,), 2 ** (-8 / n_heads)))
    assert_close(found[-1], torch.tensor(2.0**-8))


@pytest.mark.parametrize("n_heads", range(1, 40))
def test_there_is_one_slope_per_head_and_no_two_are_alike(n_heads):
    found = slopes(n_heads)
    assert len(found) == len(found.unique()) == n_heads
    assert (found > 0).all() and (found < 1).all()


def test_the_smallest_permutation_changes_nothing():
    assert to_half_split(2).tolist() == [0, 1]


def test_one_layout_becomes_the_other_by_a_permutation():
    q, k, _ = qkv()
    order = to_half_split(D_HEAD)
    inter, half = (RoPE(d_head=D_HEAD, layout=layout) for layout in LAYOUTS)
    for one, other in zip(
        inter.rotate(q, k), half.rotate(q[..., order], k[..., order]), strict=True
    ):
        assert_close(one[..., order], other)
    assert_close(scores(inter, q, k), scores(half, q[..., order], k[..., order]))
    assert not torch.allclose(scores(inter, q, k), scores(half, q, k), atol=0.1)


@every
@pytest.mark.parametrize("n", [1, QUERY])
def test_fewer_queries_stand_at_the_last_places(name, n):
    position, (q, k, v) = make(name), qkv()
    some = attend(position, q[:, :, -n:], k, v, causal(n))
    assert_close(some, attend(position, q, k, v, causal())[:, :, -n:])


@every
@pytest.mark.parametrize("need_weights", [True, False])
def test_the_future_changes_nothing_in_the_past(name, need_weights):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS, position=make(name))
    x = torch.randn(BATCH, SEQ, D_MODEL)
    before, _ = layer(x, mask=causal(), need_weights=need_weights)
    x[:, QUERY:] = torch.randn(BATCH, SEQ - QUERY, D_MODEL)
    after, _ = layer(x, mask=causal(), need_weights=need_weights)
    assert torch.equal(before[:, :QUERY], after[:, :QUERY])
    assert not torch.allclose(before[:, QUERY:], after[:, QUERY:])


@every
def test_attention_now_sees_order(name):
    """Without positions, permuting the other words leaves a word's output as it was."""
    x, order = torch.randn(BATCH, SEQ, D_MODEL), [0, *range(SEQ - 1, 0, -1)]
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS)
    assert_close(layer(x[:, order])[0][:, 0], layer(x)[0][:, 0])
    layer.position = make(name)
    found, expected = layer(x[:, order])[0][:, 0], layer(x)[0][:, 0]
    if name == "T5, causal":  # tells nothing apart that lies ahead
        found, expected = layer(x[:, order])[0][:, 2], layer(x)[0][:, order[2]]
    assert not torch.allclose(found, expected, atol=1e-3)


class OneDevice(TorchDispatchMode):
    """Refuses a mixture of devices, which the meta device lets pass in some operations."""

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        assert len({x.device for x in given if isinstance(x, torch.Tensor) and x.ndim}) < 2
        return operation(*given, **(options or {}))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_device_are_those_of_the_queries(name, dtype, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # unknown for meta
    position, options = make(name), {"device": "meta", "dtype": dtype}
    if list(position.parameters()):  # ALiBi and RoPE need not be moved
        position.to(**options)
    q, k, _ = qkv(**options)
    weights = torch.rand(BATCH, HEADS, SEQ, SEQ, **options)
    with OneDevice():
        found = *position.rotate(q, k), position.bias(q, k), position.extra(weights)
    assert all(x is None or (x.is_meta and x.dtype == dtype) for x in found)


def test_shaws_first_vectors_are_about_one_long():
    position = Shaw(d_head=101, clip=101)
    for table in (position.keys, position.values):
        assert_close(table.norm(dim=1).mean(), torch.tensor(1.0), atol=0.03, rtol=0)


def test_t5_starts_with_32_buckets_of_zero_up_to_a_distance_of_128():
    position = T5(n_heads=1, causal=True)
    assert position.table.tolist() == [[0.0]] * 32 and position.max_distance == 128


def test_nothing_of_alibi_or_rope_is_saved():
    for name in ("ALiBi", "RoPE, interleaved"):
        assert not make(name).state_dict()


def test_a_position_that_does_nothing_does_nothing():
    layer, x = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS), torch.randn(2, SEQ, D_MODEL)
    expected = layer(x)[0]
    layer.position = RelativePosition()
    assert torch.equal(layer(x)[0], expected)


# ---- agreement: the fused kernel


def masks():
    some = torch.rand(BATCH, HEADS, SEQ, SEQ) < 0.5
    some[..., 0] = True
    nothing = some.clone()
    nothing[0, 1, 3] = False
    padding = (torch.arange(SEQ) < torch.tensor([[SEQ], [QUERY]]))[:, None, None]
    return {"none": None, "causal": causal(), "padding": padding, "some": some, "empty": nothing}


@pytest.mark.parametrize("which", ["none", "causal", "padding", "some", "empty"])
@pytest.mark.parametrize("learning", [True, False])
@every
def test_explicit_and_fused_attention_agree(name, which, learning):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS, position=make(name))
    layer.requires_grad_(learning)  # without gradients PyTorch takes another kernel
    x, mask = torch.randn(BATCH, SEQ, D_MODEL, requires_grad=learning), masks()[which]
    fused, nothing = layer(x, mask=mask)
    explicit, weights = layer(x, mask=mask, need_weights=True)
    assert nothing is None and weights.shape == (BATCH, HEADS, SEQ, SEQ)
    assert_close(fused, explicit, atol=1e-5, rtol=0)
    if learning:
        target = torch.randn_like(x)
        wanted = [w for w in (x, *layer.parameters()) if w.requires_grad]
        one, other = (
            torch.autograd.grad((y * target).sum(), wanted, allow_unused=True)
            for y in (fused, explicit)
        )
        assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FUSED)
def test_the_fused_kernel_is_called_with_every_method_that_allows_it(name, monkeypatch):
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS, position=make(name))
    called = []
    monkeypatch.setattr(
        "transformer_lit.multi_head.fused_attention",
        lambda *given, **more: called.append(1) or fused_attention(*given, **more),
    )
    layer(torch.randn(BATCH, SEQ, D_MODEL), mask=causal())
    assert called


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, SEQ), (1, HEADS, SEQ, 1), (BATCH, 1, SEQ, SEQ), (1, 1, 1, 1)]
)
@pytest.mark.parametrize("which", ["none", "causal", "padding", "empty"])
def test_a_bias_is_spread_over_axes_of_size_one(shape, which):
    q, k, v = qkv()
    bias, mask = torch.randn(shape), masks()[which]
    expected = explicit_attention(q, k, v, mask, bias=bias.expand(BATCH, HEADS, SEQ, SEQ))[0]
    assert_close(explicit_attention(q, k, v, mask, bias=bias)[0], expected)
    assert_close(fused_attention(q, k, v, mask, bias=bias), expected)


@pytest.mark.parametrize("form", ["explicit", "fused"])
@pytest.mark.parametrize("name", FUSED)
def test_nothing_to_attend_to_gives_zeros_forward_and_backward(name, form):
    position, given = make(name), qkv(requires_grad=True)
    output = attend(position, *given, torch.zeros(1, 1, 1, SEQ, dtype=torch.bool), form)
    assert torch.equal(output, torch.zeros_like(output))
    wanted = [w for w in (*given, *position.parameters()) if w.requires_grad]
    gradients = torch.autograd.grad(output.sum(), wanted, allow_unused=True)
    assert all(g is None or torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("form", ["explicit", "fused"])
@pytest.mark.parametrize("masked", [True, False])
def test_nan_is_not_hidden_by_a_bias(form, masked):
    q, k, v = qkv()
    q[0, 1, 3] = torch.nan
    found = attend(ALiBi(n_heads=HEADS), q, k, v, causal() if masked else None, form).isnan()
    assert found[0, 1, 3].all() and found.sum() == D_HEAD


# ---- agreement: loops written from the papers' formulas


def loop(score, value=lambda i, j, h: 0.0):
    """Attention by loops: ``score(q_i, k_j, i, j, head)``, and what is added to value ``j``."""

    def run(q, k, v):
        output = torch.zeros_like(q)
        for b in range(BATCH):
            for h in range(HEADS):
                for i in range(SEQ):
                    e = [score(q[b, h, i], k[b, h, j], i, j, h) for j in range(SEQ)]
                    a = torch.stack(e).softmax(0)
                    output[b, h, i] = sum(a[j] * (v[b, h, j] + value(i, j, h)) for j in range(SEQ))
        return output

    return run


def shaw_by_loops(position):
    def row(i, j):  # clip(j - i, k), counted from -k
        return max(-CLIP, min(CLIP, j - i)) + CLIP

    return loop(
        lambda q, k, i, j, h: q @ (k + position.keys[row(i, j)]) / math.sqrt(D_HEAD),
        lambda i, j, h: position.values[row(i, j)],
    )


def transformer_xl_by_loops(position):
    w = position.proj.weight.view(HEADS, D_HEAD, D_MODEL)

    def r(distance):
        angles = [distance / 10_000 ** (2 * m / D_MODEL) for m in range(D_MODEL // 2)]
        return torch.tensor([f(a) for a in angles for f in (math.sin, math.cos)])

    def score(q, k, i, j, h):
        place = w[h] @ r(i - j)
        u, v = position.u[h, 0], position.v[h, 0]
        return (q @ k + q @ place + u @ k + v @ place) / math.sqrt(D_HEAD)  # (a) (b) (c) (d)

    return loop(score)


def t5_by_loops(position, is_causal):
    n = BUCKETS if is_causal else BUCKETS // 2

    def bucket(back):
        exact = n // 2
        if back < exact:
            return back
        wider = math.log(back / exact) / math.log(FURTHEST / exact) * (n - exact)
        return min(n - 1, exact + math.floor(wider))

    def row(i, j):
        if is_causal:
            return bucket(max(i - j, 0))
        return bucket(abs(i - j)) + (n if j > i else 0)

    return loop(
        lambda q, k, i, j, h: q @ k / math.sqrt(D_HEAD) + position.table[row(i, j), h],
    )


def rope_by_loops(layout):
    def turned(x, place):
        y = torch.zeros(D_HEAD)
        for m in range(D_HEAD // 2):
            a, b = (2 * m, 2 * m + 1) if layout == "interleaved" else (m, m + D_HEAD // 2)
            t = place * 10_000 ** (-2 * m / D_HEAD)
            y[a] = x[a] * math.cos(t) - x[b] * math.sin(t)
            y[b] = x[a] * math.sin(t) + x[b] * math.cos(t)
        return y

    return loop(lambda q, k, i, j, h: turned(q, i) @ turned(k, j) / math.sqrt(D_HEAD))


def alibi_by_loops(position):
    slope = [2**-4, 2**-8, 2**-2]  # of three heads
    return loop(lambda q, k, i, j, h: q @ k / math.sqrt(D_HEAD) - slope[h] * abs(i - j))


BY_LOOPS = {
    "Shaw": shaw_by_loops,
    "Transformer-XL": transformer_xl_by_loops,
    "T5": lambda position: t5_by_loops(position, False),
    "T5, causal": lambda position: t5_by_loops(position, True),
    "RoPE, interleaved": lambda _: rope_by_loops("interleaved"),
    "RoPE, half-split": lambda _: rope_by_loops("half-split"),
    "ALiBi": alibi_by_loops,
}


@torch.no_grad()
@pytest.mark.parametrize("name", BY_LOOPS)
def test_each_method_is_its_papers_formula(name):
    position, given = make(name), qkv()
    expected = BY_LOOPS[name](position)(*given)
    assert_close(attend(position, *given), expected, atol=1e-5, rtol=0)


# ---- agreement: public implementations


def test_t5s_attention_is_that_of_transformers():
    config = T5Config(
        d_model=D_MODEL, d_kv=D_HEAD, num_heads=HEADS, dropout_rate=0.0,
        relative_attention_num_buckets=BUCKETS, relative_attention_max_distance=FURTHEST,
    )  # fmt: skip
    position = make("T5")
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS, position=position)
    theirs = T5Attention(config, has_relative_attention_bias=True).eval()
    with torch.no_grad():
        for ours, name in zip("qkv", "qkv", strict=True):
            proj = layer.get_submodule(f"{ours}_proj")
            proj.bias.zero_()
            theirs.get_submodule(name).weight.copy_(proj.weight)
        layer.q_proj.weight.mul_(D_HEAD**0.5)  # T5 does not divide its scores
        layer.out_proj.bias.zero_()
        theirs.o.weight.copy_(layer.out_proj.weight)
        theirs.relative_attention_bias.weight.copy_(position.table)
        x = torch.randn(BATCH, SEQ, D_MODEL)
        assert_close(layer(x)[0], theirs(x)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("n", "furthest"), [(32, 128), (64, 256), (8, 20), (4, 7), (20, 100)])
def test_t5s_buckets_are_those_of_transformers(is_causal, n, furthest):
    offset = torch.arange(-1000, 1001)
    expected = T5Attention._relative_position_bucket(
        offset, bidirectional=not is_causal, num_buckets=n, max_distance=furthest
    )
    assert torch.equal(buckets(offset, n, furthest, causal=is_causal), expected)


def test_half_split_rope_is_llamas():
    config = LlamaConfig(
        hidden_size=D_MODEL, num_attention_heads=HEADS, num_hidden_layers=1, vocab_size=3
    )
    q, k, _ = qkv()
    turned = modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = turned(q, torch.arange(SEQ)[None].expand(BATCH, -1))
    expected = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
    assert_close(make("RoPE, half-split").rotate(q, k), expected, atol=1e-5, rtol=0)


def test_interleaved_rope_is_gpt_js():
    config = GPTJConfig(n_embd=D_MODEL, n_head=HEADS, rotary_dim=D_HEAD)
    table = modeling_gptj.create_sinusoidal_positions(SEQ, config.rotary_dim)
    sin, cos = table[None].chunk(2, dim=-1)
    q, k, _ = qkv()
    expected = tuple(
        modeling_gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin, cos).transpose(1, 2)
        for x in (q, k)
    )
    assert_close(make("RoPE, interleaved").rotate(q, k), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_heads", [1, 3, 8, 12, 19])
def test_alibi_is_blooms(n_heads):
    """BLOOM adds the slope times the key's place, which shifts a row: its softmax is the same."""
    config = BloomConfig(n_head=n_heads)
    q, k = torch.randn(2, BATCH, n_heads, SEQ, D_HEAD)
    real = torch.ones(BATCH, SEQ, dtype=torch.long)
    alibi = modeling_bloom.build_alibi_tensor(real, config.n_head, torch.float32)
    products = (q @ k.transpose(-2, -1) / D_HEAD**0.5).masked_fill(~causal(), -torch.inf)
    expected = (products + alibi.view(BATCH, n_heads, 1, SEQ)).softmax(-1)
    bias = ALiBi(n_heads=n_heads).bias(q, k)
    found = explicit_attention(q, k, k, causal(), bias=bias)[1]
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_transformer_xls_attention_is_xlnets():
    config = XLNetConfig(d_model=D_MODEL, n_head=HEADS, d_inner=2, n_layer=1, dropout=0.0)
    theirs = XLNetRelativeAttention(config).eval()
    position, (q, k, v) = make("Transformer-XL"), qkv()
    distances = torch.arange(SEQ, -SEQ, -1.0)  # theirs start one further, at a distance of SEQ
    angles = distances[:, None] * 10_000 ** -(torch.arange(0, D_MODEL, 2) / D_MODEL)
    r = position.proj(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
    with torch.no_grad():
        theirs.r_w_bias.copy_(position.u[:, 0])
        theirs.r_r_bias.copy_(position.v[:, 0])
        expected = theirs.rel_attn_core(
            *(rearrange(x, "b h n d -> n b h d") for x in (q, k, v)),
            rearrange(r, "r (h d) -> r 1 h d", h=HEADS).expand(-1, BATCH, -1, -1),
        )
        found = rearrange(attend(position, q, k, v), "b h n d -> n b h d")
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_shaws_keys_are_those_of_wav2vec2_bert():
    config = Wav2Vec2BertConfig(
        hidden_size=D_MODEL, num_attention_heads=HEADS, attention_dropout=0.0,
        position_embeddings_type="relative_key", attn_implementation="eager",
        left_max_position_embeddings=CLIP, right_max_position_embeddings=CLIP,
    )  # fmt: skip
    theirs, position = Wav2Vec2BertSelfAttention(config).eval(), make("Shaw, keys only")
    layer = MultiHeadAttention(d_model=D_MODEL, n_heads=HEADS, position=position)
    with torch.no_grad():
        for ours, name in [("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "out")]:
            state = layer.get_submodule(ours).state_dict()
            theirs.get_submodule(f"linear_{name}").load_state_dict(state)
        theirs.distance_embedding.weight.copy_(position.keys)
        x = torch.randn(BATCH, SEQ, D_MODEL)
        assert_close(layer(x)[0], theirs(x)[0], atol=1e-5, rtol=0)


# ---- gradients


@every
def test_gradients(name):
    position = make(name).double()
    given = qkv(query=QUERY, dtype=torch.float64, requires_grad=True)
    learned = [p for p in position.parameters() if p.requires_grad]

    def run(q, k, v, *_):
        return attend(position, q, k, v, causal(QUERY))

    assert gradcheck(run, (*given, *learned), fast_mode=True)


def test_a_bias_of_shaws_values_is_not_learned_where_it_is_not_used():
    assert make("Shaw").values.requires_grad
    assert not make("Shaw, keys only").values.requires_grad


# ---- bad input


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("d_head", [-2, 0, 1, 7])
def test_rope_needs_an_even_width(layout, d_head):
    with pytest.raises(ValueError, match=f"d_head must be even and at least 2, got {d_head}"):
        RoPE(d_head=d_head, layout=layout)
    with pytest.raises(ValueError, match=f"d_head must be even and at least 2, got {d_head}"):
        to_half_split(d_head)


@pytest.mark.parametrize("places", [[0, -1], [3], [0, 1, 2]])
def test_places_that_are_negative_or_not_one_per_vector_are_refused(unchecked_shapes, places):
    expected = rf"2 places, none of them negative, got \[{', '.join(map(str, places))}\]"
    with pytest.raises(ValueError, match=expected):
        RoPE(d_head=4, layout="half-split").turn(torch.randn(1, 1, 2, 4), torch.tensor(places))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_places_that_are_no_integers_are_refused(unchecked_shapes, dtype):
    places = torch.ones(2, dtype=dtype)
    with pytest.raises(ValueError, match=f"got .* of {dtype}"):
        RoPE(d_head=4, layout="half-split").turn(torch.randn(1, 1, 2, 4), places)


def test_a_vector_of_another_width_is_not_turned():
    with pytest.raises(ValueError, match="heads 4 wide, the attention's are 6"):
        RoPE(d_head=4, layout="half-split").turn(torch.randn(1, 1, 1, 6), torch.arange(1))


def test_ropes_layout_is_one_of_two_and_has_no_default():
    with pytest.raises(ValueError, match="'interleaved' or 'half-split', got 'llama'"):
        RoPE(d_head=D_HEAD, layout="llama")
    with pytest.raises(TypeError, match="layout"):
        RoPE(d_head=D_HEAD)


@pytest.mark.parametrize("n_heads", [0, -1])
def test_no_heads_are_refused(n_heads):
    for make_one in (
        lambda: ALiBi(n_heads=n_heads),
        lambda: slopes(n_heads),
        lambda: T5(n_heads=n_heads, causal=True),
        lambda: TransformerXL(n_heads=n_heads, d_head=2),
    ):
        with pytest.raises(ValueError, match=f"n_heads.* must be at least 1.*got {n_heads}"):
            make_one()


def test_transformer_xl_needs_an_even_width():
    with pytest.raises(ValueError, match="their product even, got 3 and 5"):
        TransformerXL(n_heads=3, d_head=5)


@pytest.mark.parametrize("sizes", [{"clip": 0}, {"clip": -1}, {"d_head": 0}])
def test_shaw_refuses_sizes_below_one(sizes):
    arguments = {"d_head": D_HEAD, "clip": CLIP} | sizes
    with pytest.raises(ValueError, match="got {d_head} and {clip}".format(**arguments)):
        Shaw(**arguments)


@pytest.mark.parametrize(
    ("is_causal", "n"), [(True, 1), (True, 0), (True, -4), (False, 1), (False, 2), (False, 7)]
)
def test_t5_needs_two_buckets_in_each_direction(is_causal, n):
    with pytest.raises(ValueError, match=rf"n_buckets must be at least 2.*got {n} with"):
        T5(n_heads=HEADS, causal=is_causal, n_buckets=n)
    with pytest.raises(ValueError, match=rf"got {n} with causal={is_causal}"):
        buckets(torch.zeros(1, dtype=torch.long), n, 128, causal=is_causal)


def test_t5s_wide_buckets_must_reach_further_than_its_near_ones():
    with pytest.raises(ValueError, match="max_distance must be above 16, got 16"):
        T5(n_heads=HEADS, causal=True, n_buckets=32, max_distance=16)


@pytest.mark.parametrize(("query", "key"), [(0, 3), (4, 3), (0, 0)])
def test_queries_without_a_place_are_refused(query, key):
    with pytest.raises(ValueError, match=f"1 to {key} queries for {key} keys, got {query}"):
        offsets(query, key)


@pytest.mark.parametrize("name", ["Transformer-XL", "T5", "ALiBi"])
def test_a_position_for_another_number_of_heads_is_refused(name):
    layer = MultiHeadAttention(d_model=5 * D_HEAD, n_heads=5, position=make(name))
    with pytest.raises(ValueError, match="this position is for 3 heads, the attention has 5"):
        layer(torch.randn(BATCH, SEQ, 5 * D_HEAD))


@pytest.mark.parametrize(
    "name", ["Transformer-XL", "Shaw", "RoPE, half-split", "RoPE, interleaved"]
)
def test_a_position_for_heads_of_another_width_is_refused(name):
    layer = MultiHeadAttention(d_model=HEADS * 4, n_heads=HEADS, position=make(name))
    with pytest.raises(ValueError, match="for heads 22 wide, the attention's are 4"):
        layer(torch.randn(BATCH, SEQ, HEADS * 4))


@pytest.mark.parametrize("form", [explicit_attention, fused_attention])
@pytest.mark.parametrize("shape", [(HEADS, SEQ, SEQ), (1, 2, SEQ, SEQ), (1, 1, SEQ, 5)])
def test_a_bias_that_does_not_fit_is_refused(form, shape):
    with pytest.raises(ValueError, match=r"bias of shape .* does not fit scores of shape"):
        form(*qkv(), bias=torch.zeros(shape))


# ---- broken on purpose


def broken_direction(position):  # key before query, and query before key
    return loop(
        lambda q, k, i, j, h: (
            q @ (k + position.keys[max(-CLIP, min(CLIP, i - j)) + CLIP]) / math.sqrt(D_HEAD)
        )
    )


def broken_scale(position):  # the positions' part is not divided
    return loop(
        lambda q, k, i, j, h: (
            q @ k / math.sqrt(D_HEAD) + q @ position.keys[max(-CLIP, min(CLIP, j - i)) + CLIP]
        )
    )


@torch.no_grad()
@pytest.mark.parametrize("broken", [broken_direction, broken_scale])
def test_a_broken_variant_of_shaw_disagrees(broken):
    position, given = make("Shaw, keys only"), qkv()
    assert (broken(position)(*given) - attend(position, *given)).abs().max() > 0.05


def test_a_shift_without_its_zero_disagrees():
    x = torch.randn(SEQ, 2 * SEQ - 1)
    assert not torch.allclose(x[:, :SEQ], shift(x))
    expected = torch.stack([row[SEQ - 1 - i :][:SEQ] for i, row in enumerate(x)])
    assert torch.equal(shift(x), expected)
