import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from position_costs import bytes_alive
from transformer_lit import sparse_attention
from transformer_lit.attention import explicit_attention, fused_attention, softmax_weights
from transformer_lit.block import Block, FeedForward
from transformer_lit.data import karate
from transformer_lit.masking import causal_mask, local_mask, padding_mask
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.sparse_attention import (
    GraphAttention,
    WindowedAttention,
    edge_softmax,
    edges_of,
    windowed_attention,
)

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
NODES, D_IN, HEADS, D_HEAD = 7, 11, 3, 5
BATCH, SEQ = 2, 71
ISOLATED = 4


def graph() -> torch.Tensor:
    """A mask with edges both ways, one way only, to oneself, and a node without any."""
    mask = torch.rand(NODES, NODES) < 0.5
    mask[0] = mask[1, 1] = True
    mask[2, 2] = False
    mask[ISOLATED] = mask[:, ISOLATED] = False
    return mask


def graph_layer() -> GraphAttention:
    return GraphAttention(d_in=D_IN, d_head=D_HEAD, n_heads=HEADS)


def dense(layer, x, mask):
    """The paper's formula on the full table: concatenate, LeakyReLU, mask, softmax, mix."""
    weight = layer.proj.weight.view(HEADS, D_HEAD, x.shape[1])
    values = torch.einsum("hdi,ni->hnd", weight, x)  # (heads, nodes, d_head)
    n = len(x)
    pairs = torch.cat(
        [values[:, :, None].expand(-1, n, n, -1), values[:, None].expand(-1, n, n, -1)], dim=-1
    )
    a = torch.cat([layer.a_query, layer.a_key], dim=-1)
    scores = F.leaky_relu(torch.einsum("hd,hijd->hij", a, pairs), 0.2)
    weights = softmax_weights(scores, mask[None])
    return (weights @ values).transpose(0, 1), weights


def three(seq=SEQ, d_value=D_HEAD):
    sizes = BATCH, HEADS, seq
    return tuple(torch.randn(*sizes, d, requires_grad=True) for d in (D_HEAD, D_HEAD, d_value))


def agree(sparse, full, inputs):
    """Expect two functions to give the same output and the same gradients, to 1e-5."""
    output, expected = sparse(*inputs), full(*inputs)
    assert_close(output, expected, atol=1e-5, rtol=0)
    arriving = torch.randn_like(output)
    found, wanted = (torch.autograd.grad(y, inputs, arriving) for y in (output, expected))
    for one, other in zip(found, wanted, strict=True):
        assert one.isfinite().all()
        assert_close(one, other, atol=1e-5, rtol=0)


# ---- hand-computed values


def test_edges_by_hand():
    mask = torch.tensor([[True, False, True], [False, False, False], [True, False, False]])
    assert edges_of(mask).tolist() == [[0, 0, 2], [0, 2, 0]]
    assert edges_of(torch.zeros(3, 3, dtype=torch.bool)).shape == (2, 0)


def test_weights_of_edges_by_hand():
    scores = torch.tensor([[2.0], [1], [1], [3], [5]]).log()
    weights = edge_softmax(scores, torch.tensor([0, 0, 2, 2, 1]), 3)
    assert_close(weights[:, 0], torch.tensor([2 / 3, 1 / 3, 1 / 4, 3 / 4, 1]))


def test_a_graph_layer_by_hand():
    layer = GraphAttention(d_in=1, d_head=1, n_heads=1)
    with torch.no_grad():
        layer.proj.weight.fill_(1)
        layer.a_query.fill_(0)
        layer.a_key.fill_(torch.tensor(2.0).log())
    x, edges = torch.tensor([[1.0], [2], [-5]]), torch.tensor([[0, 0, 2], [0, 1, 2]])
    output, weights = layer(x, edges)  # exp(log 2 * x) is 2 and 4
    assert_close(weights[:, 0], torch.tensor([1 / 3, 2 / 3, 1]))
    assert_close(output[:, 0, 0], torch.tensor([5 / 3, 0, -5]))


def test_a_window_by_hand():
    q, k = torch.zeros(1, 1, 4, 1), torch.zeros(1, 1, 4, 1)
    v = torch.tensor([1.0, 2, 3, 7])[None, None, :, None]
    output = windowed_attention(q, k, v, window=1)
    assert_close(output.flatten(), torch.tensor([1.5, 2, 4, 5]))


# ---- properties


def test_weights_sum_to_one_over_the_edges_of_each_query_that_has_some():
    mask = graph()
    edges = edges_of(mask)
    _, weights = graph_layer()(torch.randn(NODES, D_IN), edges)
    sums = torch.zeros(NODES, HEADS).index_add(0, edges[0], weights)
    assert_close(sums, mask.any(1).float()[:, None].expand(-1, HEADS))


def test_an_isolated_node_gets_zeros_and_finite_gradients():
    layer, x = graph_layer(), torch.randn(NODES, D_IN, requires_grad=True)
    output, _ = layer(x, edges_of(graph()))
    assert torch.equal(output[ISOLATED], torch.zeros(HEADS, D_HEAD))
    gradients = torch.autograd.grad(output.square().sum(), (x, *layer.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert torch.equal(gradients[0][ISOLATED], torch.zeros(D_IN))


def test_a_graph_without_edges_gives_zeros():
    output, weights = graph_layer()(torch.randn(NODES, D_IN), torch.zeros(2, 0, dtype=torch.long))
    assert not output.any() and weights.shape == (0, HEADS)


def test_a_loop_to_itself_is_all_that_a_lonely_node_sees():
    layer, x = graph_layer(), torch.randn(NODES, D_IN)
    output, weights = layer(x, torch.tensor([[ISOLATED], [ISOLATED]]))
    assert_close(output[ISOLATED].flatten(), layer.proj(x)[ISOLATED])
    assert torch.equal(weights, torch.ones(1, HEADS))


def test_the_order_of_edges_and_the_names_of_nodes_do_not_matter():
    layer, x, edges = graph_layer(), torch.randn(NODES, D_IN), edges_of(graph())
    expected, weights = layer(x, edges)
    order = torch.randperm(edges.shape[1])
    output, shuffled = layer(x, edges[:, order])
    assert_close(output, expected)
    assert_close(shuffled, weights[order])
    names = torch.randperm(NODES)  # node i is called names[i] now
    renamed, _ = layer(torch.empty_like(x).index_copy(0, names, x), names[edges])
    assert_close(renamed[names], expected)


def test_two_layers_reach_two_edges_far_and_no_further():
    # A path 0 - 1 - ... - 6.
    path = local_mask(NODES, 1)[0, 0]
    layers = graph_layer(), GraphAttention(d_in=HEADS * D_HEAD, d_head=D_HEAD, n_heads=HEADS)

    def run(x):
        for layer in layers:
            x = layer(x, edges_of(path))[0].flatten(1)
        return x

    x = torch.randn(NODES, D_IN)
    other = x.clone()
    other[0] += 1
    assert (run(x) == run(other)).all(1).tolist() == [False] * 3 + [True] * 4


def test_large_scores_do_not_overflow():
    scores = torch.tensor([[1e4], [1e4], [-1e4]])
    weights = edge_softmax(scores, torch.tensor([0, 0, 1]), 2)
    assert_close(weights[:, 0], torch.tensor([0.5, 0.5, 1]))


def test_every_node_ranks_the_others_alike():
    # Brody et al. 2022 call it static: the query's number moves all scores of a row together.
    x = torch.randn(NODES, D_IN)
    everybody = torch.ones(NODES, NODES, dtype=torch.bool)
    _, weights = graph_layer()(x, edges_of(everybody))
    tables = weights.view(NODES, NODES, HEADS)
    assert torch.equal(tables.argsort(1), tables[:1].argsort(1).expand(NODES, -1, -1))


@pytest.mark.parametrize("window", [0, 1, 37])
def test_outside_the_window_nothing_changes_to_the_bit(window):
    q, k, v = three()
    before = windowed_attention(q, k, v, window=window)
    k2, v2 = k.detach().clone(), v.detach().clone()
    k2[:, :, 53], v2[:, :, 53] = 7, 7
    after = windowed_attention(q, k2, v2, window=window)
    changed = (before != after).any(-1).any(0).any(0)
    assert changed.nonzero().flatten().tolist() == [
        place for place in range(SEQ) if abs(place - 53) <= window
    ]


@pytest.mark.parametrize("window", [SEQ - 1, SEQ, 10 * SEQ])
def test_a_window_larger_than_the_sequence_hides_nothing(window):
    agree(lambda *x: windowed_attention(*x, window=window), fused_attention, three())


def test_padding_changes_nothing():
    q, k, v = three()
    mask = padding_mask(torch.tensor([SEQ - 5, SEQ - 5]), SEQ)
    padded = windowed_attention(q, k, v, window=3, mask=mask)
    alone = windowed_attention(*(x[:, :, : SEQ - 5] for x in (q, k, v)), window=3)
    assert_close(padded[:, :, : SEQ - 5], alone)


def test_bytes_grow_evenly_with_the_length_forward_and_backward():
    most = {"windowed": [], "dense": []}
    for n in (512, 1024, 2048):
        inputs = [torch.randn(1, 1, n, D_HEAD, requires_grad=True) for _ in range(3)]
        mask = local_mask(n, 3)

        def windowed(inputs=inputs):
            windowed_attention(*inputs, window=3).sum().backward()

        def full(inputs=inputs, mask=mask):
            explicit_attention(*inputs, mask)[0].sum().backward()

        most["windowed"].append(bytes_alive(windowed))
        most["dense"].append(bytes_alive(full))
    for small, large in zip(most["windowed"], most["windowed"][1:], strict=False):
        assert 1.8 < large / small < 2.2
    for small, large in zip(most["dense"], most["dense"][1:], strict=False):
        assert 3.5 < large / small < 4.5


# ---- agreement with the dense masked computation


def test_the_graph_layer_agrees_with_the_dense_form_forward_and_backward():
    layer, mask = graph_layer(), graph()
    inputs = torch.randn(NODES, D_IN, requires_grad=True), *layer.parameters()
    agree(lambda x, *_: layer(x, edges_of(mask))[0], lambda x, *_: dense(layer, x, mask)[0], inputs)
    _, weights = layer(inputs[0], edges_of(mask))
    assert_close(weights, dense(layer, inputs[0], mask)[1][:, mask].T)


def test_the_graph_layer_agrees_with_the_dense_form_on_the_karate_club():
    club = karate.load()
    mask = torch.from_numpy(club.adjacency) | torch.eye(34, dtype=torch.bool)
    layer, x = (
        GraphAttention(d_in=34, d_head=D_HEAD, n_heads=HEADS),
        torch.from_numpy(club.features),
    )
    assert edges_of(mask).shape == (2, 2 * 78 + 34)
    assert_close(layer(x, edges_of(mask))[0], dense(layer, x, mask)[0], atol=1e-5, rtol=0)


def test_dot_products_along_edges_agree_with_masked_attention():
    mask, (q, k, v) = graph(), torch.randn(3, NODES, D_HEAD)
    queries, keys = edges_of(mask)
    weights = edge_softmax(
        (q[queries] * k[keys]).sum(-1, keepdim=True) / D_HEAD**0.5, queries, NODES
    )
    output = torch.zeros_like(v).index_add(0, queries, weights * v[keys])
    assert_close(output, explicit_attention(q, k, v, mask)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [0, 1, 5, 31, 32, 37, 70, 200])
@pytest.mark.parametrize("seq", [1, 3, 31, 32, 33, 71, 131])
def test_stretches_agree_with_the_masked_dense_form_forward_and_backward(seq, window):
    mask = padding_mask(torch.tensor([seq, max(0, seq - 7)]), seq)
    agree(
        lambda *x: windowed_attention(*x, window=window, mask=mask),
        lambda *x: explicit_attention(*x, mask & local_mask(seq, window))[0],
        three(seq, d_value=13),
    )


def test_stretches_agree_with_the_fused_attention_of_pytorch():
    agree(
        lambda *x: windowed_attention(*x, window=9),
        lambda *x: F.scaled_dot_product_attention(*x, attn_mask=local_mask(SEQ, 9)),
        three(),
    )


def test_the_windowed_layer_agrees_with_a_masked_one_alone_and_in_a_block():
    window, d_model = 5, HEADS * D_HEAD
    ours = WindowedAttention(d_model=d_model, n_heads=HEADS, window=window)
    theirs = MultiHeadAttention(d_model=d_model, n_heads=HEADS)
    theirs.load_state_dict(ours.state_dict())
    mask, x = padding_mask(torch.tensor([SEQ, 41]), SEQ), torch.randn(BATCH, SEQ, d_model)
    joined = mask & local_mask(SEQ, window)
    assert_close(ours(x, mask=mask)[0], theirs(x, mask=joined)[0], atol=1e-5, rtol=0)
    feed_forward = FeedForward(d_model=d_model, d_ff=17)
    one = Block(attention=ours, feed_forward=feed_forward, d_model=d_model)
    other = Block(attention=theirs, feed_forward=feed_forward, d_model=d_model)
    assert_close(one(x, mask=mask)[0], other(x, mask=joined)[0], atol=1e-5, rtol=0)


# ---- gradients


def test_gradients_of_the_graph_layer_are_those_of_finite_differences():
    layer, edges = graph_layer().double(), edges_of(graph())
    x = torch.randn(NODES, D_IN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, edges)[0], x)


def test_gradients_of_windows_are_those_of_finite_differences():
    inputs = tuple(x.detach().double().requires_grad_() for x in three(seq=7))
    inputs = tuple(x.detach()[:1, :1].requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(lambda *x: windowed_attention(*x, window=2), inputs)


# ---- bad input


@pytest.mark.parametrize("mask", [torch.ones(3, 3), torch.ones(1, 3, 3, dtype=torch.bool)])
def test_edges_come_from_a_boolean_matrix_only(unchecked_shapes, mask):
    with pytest.raises(ValueError, match=r"mask must be \(query, key\) of torch.bool, got"):
        edges_of(mask)


@pytest.mark.parametrize("bad", [-1, NODES, 99])
@pytest.mark.parametrize("row", [0, 1])
def test_a_node_out_of_range_is_named(row, bad):
    edges = edges_of(graph())
    edges[row, 1] = bad
    with pytest.raises(ValueError, match=rf"nodes must lie in 0 \.\. {NODES - 1}, got {bad}"):
        graph_layer()(torch.randn(NODES, D_IN), edges)


def test_an_edge_listed_twice_is_refused():
    edges = torch.tensor([[0, 3, 0, 3], [1, 5, 2, 5]])
    with pytest.raises(ValueError, match="3 looks at 5 twice"):
        graph_layer()(torch.randn(NODES, D_IN), edges)


@pytest.mark.parametrize("edges", [torch.zeros(3, 2, dtype=torch.long), torch.zeros(2).long()])
def test_edges_of_another_shape_are_refused(unchecked_shapes, edges):
    with pytest.raises(ValueError, match=r"edges must be \(2, edges\), got shape"):
        graph_layer()(torch.randn(NODES, D_IN), edges)


def test_nodes_that_are_no_integers_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"nodes must be integers, got torch\.float32"):
        graph_layer()(torch.randn(NODES, D_IN), edges_of(graph()).float())


def test_scores_without_one_query_each_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"got shapes \(5, 1\) and \(3,\)"):
        edge_softmax(torch.zeros(5, 1), torch.zeros(3, dtype=torch.long), 2)
    with pytest.raises(ValueError, match=r"0 \.\. 1, got 2"):
        edge_softmax(torch.zeros(1, 1), torch.tensor([2]), 2)


def test_vectors_of_another_width_are_refused(unchecked_shapes):
    for x in (torch.randn(NODES, D_IN + 1), torch.randn(0, D_IN)):
        with pytest.raises(ValueError, match=rf"x must be \(nodes, {D_IN}\) and not empty"):
            graph_layer()(x, edges_of(graph()))


@pytest.mark.parametrize("name", ["d_in", "d_head", "n_heads"])
def test_sizes_below_one_are_refused(name):
    sizes = {"d_in": 5, "d_head": 3, "n_heads": 2} | {name: 0}
    with pytest.raises(ValueError, match="must be at least 1, got"):
        GraphAttention(**sizes)


def test_a_window_below_zero_is_refused():
    with pytest.raises(ValueError, match="window must be at least 0 and whole, got -1"):
        windowed_attention(*three(), window=-1)
    with pytest.raises(ValueError, match="window must be at least 0 and whole, got -1"):
        WindowedAttention(d_model=6, n_heads=2, window=-1)


def test_queries_keys_and_values_must_be_as_many(unchecked_shapes):
    q, k, v = three()
    for given in ((q, k[:, :, 1:], v), (q, k, v[:1]), (q[0], k[0], v[0]), (q[:, :, :0],) * 3):
        with pytest.raises(ValueError, match=r"must be \(batch, heads, seq, width\), alike, got"):
            windowed_attention(*given, window=1)


def test_a_mask_that_is_more_than_padding_is_refused(unchecked_shapes):
    wrong = causal_mask(SEQ), torch.ones(1, 1, 1, SEQ), torch.ones(3, 1, 1, SEQ, dtype=torch.bool)
    for mask in wrong:
        with pytest.raises(ValueError, match=rf"mask must be \({BATCH} or 1, 1, 1, {SEQ}\)"):
            windowed_attention(*three(), window=1, mask=mask)


def test_a_windowed_layer_has_no_weights_to_give():
    layer = WindowedAttention(d_model=6, n_heads=2, window=1)
    with pytest.raises(ValueError, match="need_weights is True"):
        layer(torch.randn(1, 5, 6), need_weights=True)


# ---- broken on purpose


def test_edges_taken_the_wrong_way_round_are_caught():
    layer, x, mask = graph_layer(), torch.randn(NODES, D_IN), graph()
    flipped, _ = layer(x, edges_of(mask).flip(0))
    assert (flipped - dense(layer, x, mask)[0]).abs().max() > 1e-2
    assert_close(flipped, dense(layer, x, mask.T)[0], atol=1e-5, rtol=0)


def test_a_softmax_over_all_edges_at_once_is_caught(monkeypatch):
    monkeypatch.setattr(
        sparse_attention, "edge_softmax", lambda scores, queries, n_nodes: scores.softmax(0)
    )
    layer, x, mask = graph_layer(), torch.randn(NODES, D_IN), graph()
    assert (layer(x, edges_of(mask))[0] - dense(layer, x, mask)[0]).abs().max() > 1e-2


def test_stretches_that_see_their_own_keys_only_are_caught():
    half = 19
    q, k, v = three(seq=2 * half)
    halves = [
        windowed_attention(*(x[:, :, part] for x in (q, k, v)), window=3)
        for part in (slice(0, half), slice(half, None))
    ]
    gap = (torch.cat(halves, 2) - windowed_attention(q, k, v, window=3)).abs().amax((0, 1, 3))
    places = torch.arange(2 * half)
    assert torch.equal(gap > 1e-5, (places >= half - 3) & (places < half + 3))
