import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.positions import (
    LearnedPositions,
    OneHotPositions,
    SinusoidalPositions,
    sinusoids,
)

# Sizes are different primes where they can be; the width of sinusoids has to be even.
BATCH, SEQ, D_MODEL, MAX_LEN = 3, 7, 10, 13


def vectors() -> torch.Tensor:
    return torch.randn(BATCH, SEQ, D_MODEL)


def kinds() -> dict[str, nn.Module]:
    return {
        "one-hot": OneHotPositions(max_len=MAX_LEN),
        "sinusoidal": SinusoidalPositions(d_model=D_MODEL, max_len=MAX_LEN),
        "learned": LearnedPositions(d_model=D_MODEL, max_len=MAX_LEN),
    }


every_kind = pytest.mark.parametrize("kind", ["one-hot", "sinusoidal", "learned"])


# ---- hand-computed values


def test_sinusoids_by_hand():
    """Two pairs: angles 0, 1, 2 and, a hundred times slower, 0, 0.01, 0.02."""
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [0.84147098, 0.54030231, 0.00999983, 0.99995],
        [0.90929743, -0.41614684, 0.01999867, 0.99980001],
    ]
    assert_close(sinusoids(3, 4), torch.tensor(expected))


def test_the_first_place_is_zeros_and_ones():
    assert sinusoids(1, 6).tolist() == [[0, 1, 0, 1, 0, 1]]


def test_sinusoids_are_added_by_hand():
    layer = SinusoidalPositions(d_model=2, max_len=5)
    output = layer(torch.tensor([[[3.0, 5.0], [7.0, 11.0]]]))
    assert_close(output, torch.tensor([[[3.0, 6.0], [7.84147098, 11.54030231]]]))


def test_one_hot_places_are_appended_by_hand():
    output = OneHotPositions(max_len=3)(torch.tensor([[[5.0], [7.0]], [[11.0], [13.0]]]))
    assert output.tolist() == [[[5, 1, 0, 0], [7, 0, 1, 0]], [[11, 1, 0, 0], [13, 0, 1, 0]]]


def test_learned_rows_are_added_by_hand():
    layer = LearnedPositions(d_model=2, max_len=3)
    with torch.no_grad():
        layer.table.copy_(torch.tensor([[1.0, 2], [10, 20], [100, 200]]))
    assert layer(torch.tensor([[[3.0, 5.0], [7.0, 11.0]]])).tolist() == [[[4, 7], [17, 31]]]


def test_a_table_may_have_a_single_place():
    x = torch.tensor([[[5.0]]])
    assert OneHotPositions(max_len=1)(x).tolist() == [[[5, 1]]]
    learned = LearnedPositions(d_model=1, max_len=1)
    assert torch.equal(learned(x), x + learned.table)


# ---- properties


@pytest.mark.parametrize("d_model", [8, 64])
def test_no_two_places_of_four_thousand_share_their_sinusoids(d_model):
    table = sinusoids(4096, d_model)
    assert len(table.unique(dim=0)) == 4096
    assert torch.pdist(table[:1024]).min() > 0.1


def test_sinusoids_have_one_length():
    assert_close(sinusoids(997, D_MODEL).norm(dim=1), torch.full((997,), (D_MODEL / 2) ** 0.5))


def test_the_table_of_a_shorter_max_len_is_the_start_of_a_longer_one():
    assert torch.equal(sinusoids(MAX_LEN, D_MODEL), sinusoids(997, D_MODEL)[:MAX_LEN])


def rotation(shift: int, d_model: int) -> torch.Tensor:
    """Turn each pair by its own angle: the matrix that takes a place to the one ``shift`` later."""
    blocks = []
    for i in range(0, d_model, 2):
        angle = shift / 10_000 ** (i / d_model)
        blocks.append([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return torch.block_diag(*torch.tensor(blocks))


@pytest.mark.parametrize("shift", [1, 5, 101, -3])
def test_a_shift_is_a_rotation(shift):
    table, turn = sinusoids(997, D_MODEL), rotation(shift, D_MODEL)
    assert_close(turn @ turn.T, torch.eye(D_MODEL))
    before, after = (table[:-shift], table[shift:]) if shift > 0 else (table[3:], table[:-3])
    assert_close(before @ turn.T, after, atol=1e-5, rtol=0)


def test_the_dot_product_of_two_places_depends_on_their_distance():
    table = sinusoids(101, 64)
    products = table @ table.T
    for distance in range(101):
        along = products.diagonal(distance)
        assert_close(along, products[0, distance].expand_as(along), atol=1e-4, rtol=0)
    assert (products[0, 1:] < products[0, 0] - 1).all()
    far, near = products[0, 51:].mean(), products[0, 1:11].mean()
    assert far < 0.7 * near


@every_kind
def test_a_vector_gets_the_same_place_in_every_batch_and_length(kind):
    layer, x = kinds()[kind], vectors()
    output = layer(x)
    assert torch.equal(layer(x[:1, :5]), output[:1, :5])
    assert torch.equal(layer(x[1:]), output[1:])


@every_kind
def test_attention_takes_anagrams_for_one_word_until_it_gets_places(kind):
    layer, x, order = kinds()[kind], vectors(), [2, 0, 1, *range(3, SEQ)]
    attend = MultiHeadAttention(d_model=D_MODEL, n_heads=1)
    assert_close(attend(x[:, order])[0], attend(x)[0][:, order])
    attend = MultiHeadAttention(d_model=layer(x).shape[-1], n_heads=1)
    moved = attend(layer(x[:, order]))[0] - attend(layer(x))[0][:, order]
    assert moved.abs().max() > 1e-3


def test_only_the_learned_table_is_learned_and_saved():
    for kind, layer in kinds().items():
        names = [name for name, _ in layer.named_parameters()]
        assert names == list(layer.state_dict()) == (["table"] if kind == "learned" else [])


@every_kind
def test_the_table_moves_with_the_layer(kind):
    layer = kinds()[kind].double()
    assert layer(vectors().double()).dtype == torch.float64
    with pytest.raises(RuntimeError, match="device"):
        layer(vectors().to("meta"))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_vectors_keep_their_dtype(kind, dtype):
    assert kinds()[kind](vectors().to(dtype)).dtype == dtype


# ---- agreement


@pytest.mark.parametrize("d_model", [2, 10, 64])
def test_sinusoids_agree_with_the_papers_formula_by_loops(d_model):
    max_len = 10_007
    table = sinusoids(max_len, d_model)
    for place in (*range(23), 997, 5003, max_len - 1):
        for i in range(d_model // 2):
            angle = place / 10_000 ** (2 * i / d_model)
            assert abs(float(table[place, 2 * i]) - math.sin(angle)) < 1e-6
            assert abs(float(table[place, 2 * i + 1]) - math.cos(angle)) < 1e-6


def test_sinusoids_agree_with_powers_of_a_complex_number():
    """Column pair i is the point exp(1j * place * frequency): the frequency's place-th power."""
    frequencies = 10_000.0 ** -(torch.arange(D_MODEL // 2, dtype=torch.float64) / (D_MODEL // 2))
    step = torch.polar(torch.ones_like(frequencies), frequencies)
    point = torch.ones_like(step)
    for row in sinusoids(101, D_MODEL):
        assert_close(row, torch.stack([point.imag, point.real], dim=-1).flatten().float())
        point = point * step


def test_learned_positions_agree_with_an_embedding_of_the_place():
    layer, x = kinds()["learned"], vectors()
    lookup = nn.Embedding.from_pretrained(layer.table.detach())
    assert_close(layer(x), x + lookup(torch.arange(SEQ)))


def test_one_hot_positions_agree_with_pytorchs_one_hot():
    output = kinds()["one-hot"](vectors())
    expected = F.one_hot(torch.arange(SEQ), MAX_LEN).float().expand(BATCH, -1, -1)
    assert torch.equal(output[..., D_MODEL:], expected)


def test_one_hot_places_through_a_matrix_are_learned_positions():
    x, joined = vectors(), nn.Linear(D_MODEL + MAX_LEN, D_MODEL, bias=False)
    layer = kinds()["learned"]
    with torch.no_grad():
        layer.table.copy_(joined.weight[:, D_MODEL:].T)
    expected = joined(kinds()["one-hot"](x))
    assert_close(layer(x @ joined.weight[:, :D_MODEL].T), expected)


# ---- gradients


@every_kind
def test_the_gradient_passes_to_the_vectors_unchanged(kind):
    layer, x = kinds()[kind], vectors().requires_grad_()
    sent = vectors()
    layer(x)[..., :D_MODEL].backward(sent)
    assert torch.equal(x.grad, sent)


def test_a_row_gets_the_sum_over_the_batch_and_unused_rows_get_nothing():
    layer, sent = kinds()["learned"], vectors()
    layer(vectors()).backward(sent)
    assert_close(layer.table.grad[:SEQ], sent.sum(0))
    assert torch.equal(layer.table.grad[SEQ:], torch.zeros(MAX_LEN - SEQ, D_MODEL))


# ---- bad input


@pytest.mark.parametrize("max_len", [0, -3])
def test_a_table_of_no_places_is_refused(max_len):
    for make in (
        lambda: sinusoids(max_len, D_MODEL),
        lambda: OneHotPositions(max_len=max_len),
        lambda: SinusoidalPositions(d_model=D_MODEL, max_len=max_len),
        lambda: LearnedPositions(d_model=D_MODEL, max_len=max_len),
    ):
        with pytest.raises(ValueError, match=f"at least 1.*, got .*{max_len}"):
            make()


@pytest.mark.parametrize("d_model", [7, 1, 0, -2])
def test_an_odd_or_missing_width_of_sinusoids_is_refused(d_model):
    with pytest.raises(ValueError, match=f"must be even, .*got {d_model}"):
        SinusoidalPositions(d_model=d_model, max_len=MAX_LEN)


def test_learned_positions_may_be_odd_but_not_empty():
    assert LearnedPositions(d_model=7, max_len=MAX_LEN).table.shape == (MAX_LEN, 7)
    with pytest.raises(ValueError, match="got 0 and 13"):
        LearnedPositions(d_model=0, max_len=MAX_LEN)


@every_kind
def test_a_sequence_up_to_max_len_fits_and_a_longer_one_is_refused(kind):
    layer = kinds()[kind]
    assert layer(torch.zeros(1, MAX_LEN, D_MODEL)).shape[1] == MAX_LEN
    with pytest.raises(ValueError, match="x has 14 places, but there are rows for max_len = 13"):
        layer(torch.zeros(1, MAX_LEN + 1, D_MODEL))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
@pytest.mark.parametrize("width", [1, D_MODEL - 1, D_MODEL + 1])
def test_vectors_of_another_width_are_refused(kind, width):
    with pytest.raises(ValueError) as raised:  # a width of 1 would broadcast without a word
        kinds()[kind](torch.zeros(BATCH, SEQ, width))
    assert str(raised.value) == f"x must be (batch, seq, 10), got shape {(BATCH, SEQ, width)}"


@every_kind
@pytest.mark.parametrize("shape", [(), (D_MODEL,), (SEQ, D_MODEL), (BATCH, 2, SEQ, D_MODEL)])
def test_vectors_of_other_axes_are_refused(kind, shape, unchecked_shapes):
    with pytest.raises(ValueError, match=r"x must be \(batch, seq, (10|d_model)\), got shape"):
        kinds()[kind](torch.zeros(shape))


# ---- deliberately broken variants are caught


@pytest.mark.parametrize(
    "broken",
    [
        lambda place, i: place / 10_000 ** (i / D_MODEL),  # the 2 of 2i forgotten
        lambda place, i: place / 10_000 ** (2 * i / (D_MODEL - 2)),  # stretched to the last pair
        lambda place, i: math.radians(place) / 10_000 ** (2 * i / D_MODEL),  # degrees
        lambda place, i: (place + 1) / 10_000 ** (2 * i / D_MODEL),  # counted from one
    ],
)
def test_a_broken_angle_disagrees(broken):
    def table(angle):
        return torch.tensor(
            [
                [f(angle(place, i)) for i in range(D_MODEL // 2) for f in (math.sin, math.cos)]
                for place in range(MAX_LEN)
            ]
        )

    ours = sinusoids(MAX_LEN, D_MODEL)
    assert_close(ours, table(lambda place, i: place / 10_000 ** (2 * i / D_MODEL)))
    assert (ours - table(broken)).abs().max() > 0.03


def test_angles_in_single_precision_are_off_far_out():
    place = torch.arange(100_003.0)[:, None]
    angles = place * 10_000.0 ** -(torch.arange(0, D_MODEL, 2) / D_MODEL)
    single = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    assert (single - sinusoids(100_003, D_MODEL)).abs().max() > 1e-4
