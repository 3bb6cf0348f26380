import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

from transformer_lit.vocabulary import PAD, UNKNOWN, Vocabulary, one_hot, pad, real_positions

# Sizes are different primes: a swapped axis cannot fit.
VOCAB, FEATURES, BATCH, SEQ = 29, 5, 3, 7
LENGTHS = (2, 7, 3)
ALPHABET = "abcdefghijklmnopqrstuvwxyz'"


def sequences() -> list[torch.Tensor]:
    return [torch.randn(length, FEATURES) for length in LENGTHS]


# ---- hand-computed values


def test_a_vocabulary_by_hand():
    letters = Vocabulary("cat")
    assert letters.symbols == (PAD, UNKNOWN, "c", "a", "t")
    assert len(letters) == 5
    assert letters.encode("tact").tolist() == [4, 3, 2, 4]
    assert letters.decode(torch.tensor([4, 3, 2, 4])) == ["t", "a", "c", "t"]
    assert letters.decode([2, 1, 0]) == ["c", UNKNOWN]
    assert "c" in letters and PAD in letters and "z" not in letters and 2 not in letters


def test_words_are_symbols_as_letters_are():
    words = Vocabulary(["saw", "a", "i"])
    assert words.encode(["i", "saw", "a", "saw"]).tolist() == [4, 2, 3, 2]


def test_a_symbol_given_twice_gets_one_id():
    assert Vocabulary("banana").symbols == (PAD, UNKNOWN, "b", "a", "n")
    assert Vocabulary("ab", specials=("<begin>", "<begin>")).symbols == ("<begin>", "a", "b")


def test_one_hot_by_hand():
    assert one_hot(torch.tensor([1, 0, 2]), 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_one_hot_of_a_single_symbol_is_all_ones():
    assert one_hot(torch.tensor([0, 0]), 1).tolist() == [[1], [1]]


def test_pad_by_hand():
    ids, lengths = pad([torch.tensor([3, 1, 20]), torch.tensor([3, 9, 20, 25])])
    assert ids.tolist() == [[3, 1, 20, 0], [3, 9, 20, 25]]
    assert lengths.tolist() == [3, 4]


def test_pad_fills_with_the_value_it_is_given():
    values, _ = pad([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])], -9.0)
    assert values.tolist() == [[[1, 2], [-9, -9]], [[3, 4], [5, 6]]]


def test_real_positions_by_hand():
    real = real_positions(torch.tensor([0, 1, 3]), 3)
    assert real.dtype == torch.bool
    assert real.tolist() == [[False] * 3, [True, False, False], [True] * 3]


def test_no_positions_are_real_where_there_are_none():
    assert real_positions(torch.tensor([0, 0]), 0).shape == (2, 0)


# ---- properties


@pytest.mark.parametrize("word", ["c", "city", "o'clock", "zzz"])
def test_text_survives_the_round_trip(word):
    letters = Vocabulary(ALPHABET)
    assert "".join(letters.decode(letters.encode(word))) == word


def test_padding_is_dropped_on_the_way_back():
    letters = Vocabulary(ALPHABET)
    words = ["a", "city", "knight"]
    tokens, _ = pad([letters.encode(word) for word in words])
    assert ["".join(letters.decode(row)) for row in tokens] == words


def test_an_unknown_symbol_is_kept_as_one():
    letters = Vocabulary(ALPHABET)
    assert letters.decode(letters.encode("café")) == ["c", "a", "f", UNKNOWN]


def test_every_one_hot_vector_is_zeros_and_a_single_one():
    vectors = one_hot(torch.randint(VOCAB, (BATCH, SEQ)), VOCAB)
    assert vectors.shape == (BATCH, SEQ, VOCAB) and vectors.dtype == torch.float32
    assert torch.equal(vectors.sum(-1), torch.ones(BATCH, SEQ))
    assert int((vectors == 0).sum()) == BATCH * SEQ * (VOCAB - 1)


def test_the_place_of_the_one_is_the_id():
    tokens = torch.randint(VOCAB, (BATCH, SEQ))
    assert torch.equal(one_hot(tokens, VOCAB).argmax(-1), tokens)


def test_all_pairs_of_different_symbols_are_equally_far():
    vectors = one_hot(torch.arange(VOCAB), VOCAB)
    expected = math.sqrt(2) * (1 - torch.eye(VOCAB))
    assert_close(torch.cdist(vectors, vectors), expected)


def test_one_hot_of_no_ids_is_empty():
    assert one_hot(torch.zeros(0, dtype=torch.long), VOCAB).shape == (0, VOCAB)


def test_pad_keeps_every_sequence_and_its_length():
    parts = sequences()
    values, lengths = pad(parts)
    assert values.shape == (BATCH, SEQ, FEATURES)
    assert lengths.tolist() == list(LENGTHS)
    for row, length, part in zip(values, LENGTHS, parts, strict=True):
        assert torch.equal(row[:length], part)
        assert not row[length:].any()


def test_pad_keeps_the_dtype():
    assert pad([torch.arange(2), torch.arange(3)]).values.dtype == torch.long
    assert pad([torch.ones(2).double()]).values.dtype == torch.float64


def test_the_real_positions_are_those_that_pad_did_not_fill():
    values, lengths = pad(sequences(), math.inf)
    real = real_positions(lengths, values.shape[1])
    assert torch.equal(real, values.isfinite().all(-1))
    assert torch.equal(real.sum(1), lengths)


def test_more_padding_adds_only_positions_that_are_not_real():
    lengths = torch.tensor(LENGTHS)
    wider = real_positions(lengths, SEQ + 4)
    assert torch.equal(wider[:, :SEQ], real_positions(lengths, SEQ))
    assert not wider[:, SEQ:].any()


def test_a_nan_in_the_input_stays_where_it_was():
    parts = sequences()
    parts[2][1, 3] = math.nan
    assert pad(parts).values.isnan().nonzero().tolist() == [[2, 1, 3]]


def test_what_is_made_lies_where_the_input_lies():
    """Also where new tensors are made elsewhere, as on a machine whose default is its GPU."""
    tokens, lengths = torch.tensor([2, 0]), torch.tensor([1, 3])
    with torch.device("meta"):
        vectors, real = one_hot(tokens, 3), real_positions(lengths, 3)
    assert vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert real.tolist() == [[True, False, False], [True] * 3]
    assert {part.device.type for part in pad([torch.ones(2, device="meta")])} == {"meta"}


# ---- agreement with PyTorch


def test_one_hot_agrees_with_pytorch():
    tokens = torch.randint(VOCAB, (BATCH, SEQ))
    assert torch.equal(one_hot(tokens, VOCAB), F.one_hot(tokens, VOCAB).float())


def test_pad_agrees_with_pytorch():
    parts = sequences()
    assert torch.equal(pad(parts, 0.5).values, pad_sequence(parts, True, 0.5))


def test_real_positions_agree_with_a_loop():
    real = real_positions(torch.tensor(LENGTHS), SEQ)
    assert real.tolist() == [[i < length for i in range(SEQ)] for length in LENGTHS]


# ---- gradients


def test_padding_sends_each_sequence_its_own_gradient():
    parts = [part.requires_grad_() for part in sequences()]
    values, lengths = pad(parts)
    weight = torch.randn_like(values)
    (values * weight).sum().backward()
    for row, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        assert torch.equal(part.grad, weight[row, :length])


# ---- bad input


def test_a_vocabulary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs at least one symbol, got none"):
        Vocabulary("")


def test_a_symbol_that_is_special_already_is_refused():
    with pytest.raises(ValueError, match=r"symbols \['<pad>'\] are special symbols already"):
        Vocabulary(["a", PAD])


def test_without_an_unknown_symbol_a_foreign_one_is_refused():
    with pytest.raises(ValueError, match=r"unknown symbol 'é'; .* knows: <pad> c a f$"):
        Vocabulary("caf", specials=(PAD,)).encode("café")


@pytest.mark.parametrize(("n", "end"), [(40, "w39"), (41, r"w39 \.\.\."), (47, r"w39 \.\.\.")])
def test_the_message_about_a_vocabulary_is_cut_behind_forty_symbols(n, end):
    words = [f"w{i}" for i in range(n)]
    with pytest.raises(ValueError, match=f"unknown symbol 'saw'.* w38 {end}$"):
        Vocabulary(words, specials=()).id_of("saw")


@pytest.mark.parametrize("empty", ["", [], ()])
def test_an_empty_word_is_refused(empty):
    with pytest.raises(ValueError, match="cannot encode an empty sequence, got "):
        Vocabulary("cat").encode(empty)


@pytest.mark.parametrize("bad", [-1, 5])
def test_decoding_an_id_outside_the_vocabulary_is_refused(bad):
    with pytest.raises(ValueError, match=rf"ids \[{bad}\] are outside a vocabulary of 5 symbols"):
        Vocabulary("cat").decode([2, bad, 3])


NO_ROW_OF_IDS = [
    torch.tensor([1.0]),
    torch.tensor([True]),
    torch.tensor([1j]),
    torch.tensor([[1]]),
    torch.tensor(1),
]


@pytest.mark.parametrize("bad", NO_ROW_OF_IDS, ids=str)
def test_what_is_no_row_of_integers_is_refused(bad, unchecked_shapes):
    got = rf"got {bad.dtype} of shape \({', '.join(map(str, bad.shape))},?\)"
    with pytest.raises(ValueError, match=rf"ids must be integers \(seq,\), {got}"):
        Vocabulary("cat").decode(bad)
    with pytest.raises(ValueError, match=f"lengths must be integers, {got}"):
        real_positions(bad, SEQ)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_one_hot_vectors_of_an_impossible_size_are_refused(size, unchecked_shapes):
    with pytest.raises(ValueError, match=f"vocab_size must be at least 1 and whole, got {size}"):
        one_hot(torch.tensor([0]), size)


@pytest.mark.parametrize("seq", [-1, 2.5])
def test_an_impossible_number_of_positions_is_refused(seq, unchecked_shapes):
    with pytest.raises(ValueError, match=f"seq must be at least 0 and whole, got {seq}"):
        real_positions(torch.tensor([0]), seq)


@pytest.mark.parametrize("bad", [-1, VOCAB])
def test_one_hot_of_an_id_outside_the_vocabulary_is_refused(bad):
    with pytest.raises(ValueError, match=rf"ids must lie in 0 \.\. {VOCAB - 1}, got .*{bad}"):
        one_hot(torch.tensor([[2, bad, 3]]), VOCAB)


def test_one_hot_of_numbers_that_are_no_ids_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=r"ids must be integers, got torch\.float32"):
        one_hot(torch.tensor([1.0, 1.5]), VOCAB)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cannot make a batch of no sequences"):
        pad([])


def test_empty_sequences_in_a_batch_are_refused_by_their_places():
    with pytest.raises(ValueError, match=r"sequences \[1, 3\] of the batch are empty"):
        pad([torch.ones(length) for length in (2, 0, 3, 0)])


def test_a_number_among_sequences_is_refused():
    with pytest.raises(ValueError, match=r"must be \(seq,\) or \(seq, features\), got a single"):
        pad([torch.tensor(3.0)])


@pytest.mark.parametrize("other", [(SEQ, FEATURES + 2), (SEQ,)])
def test_sequences_of_different_features_are_refused(other):
    with pytest.raises(ValueError, match=r"must agree in features, got .*\(5,\)"):
        pad([torch.ones(SEQ, FEATURES), torch.ones(other)])


def test_sequences_of_different_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"agree in dtype, got torch\.float32 and torch\.int64"):
        pad([torch.arange(2), torch.tensor([0.5])])


@pytest.mark.parametrize("bad", [-1, SEQ + 1])
def test_a_length_that_does_not_fit_is_refused(bad):
    with pytest.raises(ValueError, match=rf"lengths must lie in 0 \.\. {SEQ}, got \[2, {bad}\]"):
        real_positions(torch.tensor([2, bad]), SEQ)


# ---- variants broken on purpose


def test_a_mean_over_padding_as_well_is_caught():
    parts = sequences()
    values, lengths = pad(parts)
    real = real_positions(lengths, SEQ)[..., None]
    expected = torch.stack([part.mean(0) for part in parts])
    assert_close((values * real).sum(1) / lengths[:, None], expected)
    assert (values.mean(1) - expected).abs().max() > 0.1
    assert (values * ~real).sum() == 0  # the inverted mask keeps padding only


def test_padding_at_the_front_is_caught():
    """`real_positions` marks the wrong vectors of a batch that was padded at the front."""
    parts = sequences()
    front = pad_sequence([part.flip(0) for part in parts], True).flip(1)
    lengths = torch.tensor(LENGTHS)
    sums = (front * real_positions(lengths, SEQ)[..., None]).sum(1)
    assert (sums - torch.stack([part.sum(0) for part in parts])).abs().max() > 0.1
