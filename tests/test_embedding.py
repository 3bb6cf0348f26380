import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from transformer_lit.embedding import Embedding, TiedOutput
from transformer_lit.vocabulary import one_hot

# Sizes are different primes: a swapped axis cannot fit.
VOCAB, D_MODEL, BATCH, SEQ = 29, 5, 3, 7


def embedding(scaled: bool = False) -> Embedding:
    return Embedding(vocab_size=VOCAB, d_model=D_MODEL, scaled=scaled)


def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, (BATCH, SEQ))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view(torch.int32)


# ---- hand-computed values


def test_a_lookup_by_hand():
    model = Embedding(vocab_size=3, d_model=2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert model(torch.tensor([2, 0, 2])).tolist() == [[5, 6], [1, 2], [5, 6]]


def test_a_scaled_lookup_by_hand():
    model = Embedding(vocab_size=2, d_model=4, scaled=True)  # the factor is 2
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert model(torch.tensor([1])).tolist() == [[10, 12, 14, 16]]


def test_tied_logits_by_hand():
    table = Embedding(vocab_size=3, d_model=2)
    output = TiedOutput(table)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        output.bias.copy_(torch.tensor([0.0, 7.0, -1.0]))
    assert output(torch.tensor([10.0, 1.0])).tolist() == [12, 41, 55]


def test_the_tied_output_leaves_the_factor_out():
    table = Embedding(vocab_size=2, d_model=4, scaled=True)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert TiedOutput(table)(torch.ones(4)).tolist() == [10, 26]


def test_a_table_may_be_a_single_number():
    model = Embedding(vocab_size=1, d_model=1)
    assert torch.equal(model(torch.tensor([0, 0])), model.weight.expand(2, 1))


# ---- properties


@pytest.mark.parametrize("scaled", [False, True])
def test_a_lookup_is_a_one_hot_product_to_the_bit(scaled):
    model, ids = embedding(scaled), tokens()
    product = one_hot(ids, VOCAB) @ model.weight * model.scale
    assert torch.equal(bits(model(ids)), bits(product))


@pytest.mark.parametrize("scaled", [False, True])
def test_entries_leave_at_size_one(scaled):
    model = Embedding(vocab_size=101, d_model=997, scaled=scaled)
    assert_close(model(torch.arange(101)).std().item(), 1.0, rtol=0.02, atol=0)
    small = 997**-0.5 if scaled else 1.0
    assert_close(model.weight.std().item(), small, rtol=0.02, atol=0)


def test_a_scaled_table_gives_logits_of_size_one_and_a_large_one_does_not():
    x = torch.randn(101, 997)
    for scaled, size in ((True, 1.0), (False, 997**0.5)):
        table = Embedding(vocab_size=103, d_model=997, scaled=scaled)
        assert_close(TiedOutput(table)(x).std().item(), size, rtol=0.05, atol=0)


def test_each_position_depends_on_its_own_id_only():
    model, ids = embedding(), tokens()
    before = model(ids)
    other = ids.clone()
    other[1, 2] = (ids[1, 2] + 1) % VOCAB
    changed = (model(other) != before).any(-1).nonzero().tolist()
    assert changed == [[1, 2]]


def test_any_shape_of_ids_is_looked_up():
    model = embedding()
    for shape in ((), (SEQ,), (BATCH, SEQ), (2, BATCH, SEQ), (0,)):
        assert model(torch.zeros(shape, dtype=torch.long)).shape == (*shape, D_MODEL)


def test_int32_ids_are_looked_up_too():
    model, ids = embedding(), tokens()
    assert torch.equal(model(ids.int()), model(ids))


def test_the_table_is_shared_not_copied():
    table = embedding()
    output = TiedOutput(table)
    parameters = dict(nn.Sequential(table, output).named_parameters())
    assert sorted(parameters) == ["0.weight", "1.bias"]
    assert sum(p.numel() for p in parameters.values()) == VOCAB * D_MODEL + VOCAB
    x = torch.randn(BATCH, D_MODEL)
    before = output(x)
    with torch.no_grad():
        table.weight.mul_(3)
    assert_close(output(x), 3 * before)


# ---- agreement with PyTorch


def test_agrees_with_nn_embedding_and_nn_linear():
    ours, theirs = embedding(), nn.Embedding(VOCAB, D_MODEL)
    linear = nn.Linear(D_MODEL, VOCAB)
    output = TiedOutput(ours)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
        linear.weight.copy_(ours.weight)
        output.bias.copy_(linear.bias)
    ids, x = tokens(), torch.randn(BATCH, SEQ, D_MODEL)
    assert torch.equal(ours(ids), theirs(ids))
    assert_close(output(x), linear(x))


# ---- gradients


def test_only_rows_looked_up_get_a_gradient():
    model = embedding()
    model(torch.tensor([[2, 3], [5, 3]])).square().sum().backward()
    assert model.weight.grad.abs().sum(-1).nonzero().flatten().tolist() == [2, 3, 5]


def test_a_row_looked_up_twice_gets_both_gradients():
    model = embedding(scaled=True)
    weights = torch.randn(3, D_MODEL)
    (model(torch.tensor([3, 2, 3])) * weights).sum().backward()
    assert_close(model.weight.grad[3], (weights[0] + weights[2]) * model.scale)
    assert_close(model.weight.grad[2], weights[1] * model.scale)


def test_the_gradient_is_that_of_the_one_hot_product():
    model, ids = embedding(), tokens()
    upstream = torch.randn(BATCH, SEQ, D_MODEL)
    model(ids).backward(upstream)
    product = torch.einsum("bsv,bsd->vd", one_hot(ids, VOCAB), upstream)
    assert_close(model.weight.grad, product)


def test_the_gradient_is_the_same_to_the_bit_every_time():
    """Training must repeat itself: indexing, ``weight[tokens]``, adds in any order."""
    model = Embedding(vocab_size=VOCAB, d_model=67)
    ids, upstream = torch.randint(VOCAB, (1009,)), torch.randn(1009, 67)
    seen = set()
    for _ in range(20):
        model.weight.grad = None
        model(ids).backward(upstream)
        seen.add(model.weight.grad.numpy().tobytes())
    assert len(seen) == 1


def test_the_shared_table_gets_the_gradients_of_both_uses():
    table = embedding()
    output = TiedOutput(table)
    ids, upstream = torch.tensor([2, 3]), torch.randn(2, VOCAB)
    output(table(ids)).backward(upstream)
    rows = table.weight.detach()[ids]
    expected = upstream.T @ rows  # as output layer: every row
    expected[ids] += upstream @ table.weight.detach()  # as lookup: two rows
    assert_close(table.weight.grad, expected)
    assert_close(output.bias.grad, upstream.sum(0))


# ---- bad input


@pytest.mark.parametrize(("vocab_size", "d_model"), [(0, 5), (7, 0), (-3, 5), (7, -2)])
def test_sizes_below_one_are_refused(vocab_size, d_model):
    expected = f"vocab_size and d_model must be at least 1, got {vocab_size} and {d_model}"
    with pytest.raises(ValueError, match=expected):
        Embedding(vocab_size=vocab_size, d_model=d_model)


@pytest.mark.parametrize("bad", [-1, VOCAB])
def test_ids_outside_the_table_are_refused(bad):
    low, high = min(bad, 2), max(bad, 3)
    expected = rf"ids must lie in 0 \.\. {VOCAB - 1}, got ids from {low} to {high}"
    with pytest.raises(ValueError, match=expected):
        embedding()(torch.tensor([2, bad, 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_ids_that_are_no_integers_are_refused(dtype, unchecked_shapes):
    """A tensor of bool would be taken for a mask by plain indexing."""
    with pytest.raises(ValueError, match=f"ids must be integers .* got {dtype}"):
        embedding()(torch.ones(VOCAB, dtype=dtype))


def test_a_vector_of_the_wrong_width_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=f"x must be {D_MODEL} wide.* got {VOCAB}"):
        TiedOutput(embedding())(torch.randn(BATCH, VOCAB))


def test_a_vector_of_another_dtype_is_refused_but_under_autocast():
    output, x = TiedOutput(embedding()), torch.randn(BATCH, D_MODEL)
    with pytest.raises(ValueError, match=r"x is torch\.bfloat16, the embedding torch\.float32"):
        output(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(output(x.bfloat16()).float(), output(x).float())


# ---- broken variants are caught


def test_a_factor_used_twice_or_forgotten_is_caught():
    model, ids = Embedding(vocab_size=VOCAB, d_model=61, scaled=True), tokens()
    rows = F.embedding(ids, model.weight)
    for broken in (rows, rows * model.scale**2):
        assert not 0.8 < broken.std() < 1.25
    assert 0.8 < model(ids).std() < 1.25


def test_an_output_layer_with_a_copied_table_is_caught():
    table = embedding()
    output = TiedOutput(Embedding(vocab_size=VOCAB, d_model=D_MODEL))
    with torch.no_grad():
        output.embedding.weight.copy_(table.weight)
    ids = torch.tensor([2, 3])
    output(table(ids)).sum().backward()
    untouched = table.weight.grad.abs().sum(-1) == 0  # rows that only the output layer would reach
    assert int(untouched.sum()) == VOCAB - 2
