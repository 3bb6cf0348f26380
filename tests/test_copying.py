import math

import pytest
import torch
from torch.testing import assert_close

from transformer_lit.copying import (
    UNKNOWN_ID,
    ExtendedVocabulary,
    PointerGenerator,
    count_words,
    mixture,
    word_vocabulary,
)
from transformer_lit.decoding import beam, greedy
from transformer_lit.encoder_decoder import (
    BEGIN_ID,
    PAD_ID,
    STOP_ID,
    Settings,
    target_vocabulary,
)
from transformer_lit.training import Recipe, sequence_loss, train

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SOURCE, SEQ, VOCAB, HEADS, D_HEAD = 3, 7, 5, 11, 2, 13
SIZES = {"source_size": VOCAB, "target_size": VOCAB, "d_model": HEADS * D_HEAD, "n_heads": HEADS}


def model(**settings) -> PointerGenerator:
    torch.manual_seed(0)
    return PointerGenerator(Settings(n_layers=2, d_ff=17, dropout=0.0, **SIZES, **settings)).eval()


def example():
    """Sources with own words, a repeated one, and padding; targets that use them."""
    source = torch.tensor(
        [[11, 4, 12, 5, 12, 13, 6], [7, 11, 8, 4, 4, 0, 0], [5, 6, 9, 0, 0, 0, 0]]
    )
    target = torch.tensor([[1, 12, 5, 13, 4], [1, 11, 8, 4, 7], [1, 9, 3, 2, 0]])
    return source, target


def random_parts(dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    shapes = (BATCH, SEQ, VOCAB), (BATCH, SEQ), (BATCH, SEQ, SOURCE)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes]


def literal(logits, gate, scores, source, n_words):
    """The formula, word by word and place by place, in probabilities."""
    total = torch.zeros(BATCH, SEQ, n_words, dtype=logits.dtype)
    p_gen = gate.sigmoid()
    for row in range(BATCH):
        real = source[row] != PAD_ID
        for place in range(SEQ):
            a = scores[row, place][real].softmax(-1)
            write = p_gen[row, place] * logits[row, place].softmax(-1)
            for word in range(n_words):
                copied = a[source[row][real] == word].sum() * (1 - p_gen[row, place])
                total[row, place, word] = copied + (write[word] if word < VOCAB else 0)
    return total


# ---- values by hand


def test_a_mixture_by_hand():
    """Half is written, half copied: 2 has parts of both, 4 is in the source only, twice."""
    logits = torch.tensor([[[0.5, 0.25, 0.25, 1e-30]]]).log()
    scores = torch.tensor([[[1 / 2, 1 / 4, 1 / 4]]]).log()
    found = mixture(logits, torch.zeros(1, 1), scores, torch.tensor([[4, 2, 4]])).exp()
    assert_close(found, torch.tensor([[[1 / 4, 1 / 8, 1 / 8 + 1 / 8, 0, 3 / 8]]]))


def test_the_ids_of_a_source_by_hand():
    vocabulary = word_vocabulary(["beats", "lost"])
    assert vocabulary.symbols == ("<pad>", "<begin>", "<stop>", "<unk>", "beats", "lost")
    assert vocabulary.id_of("nobody") == UNKNOWN_ID
    own = ExtendedVocabulary(vocabulary, ["reid", "lost", "hooke", "reid"])
    assert own.own == ("reid", "hooke")
    assert own.encode(["hooke", "beats", "reid", "lew"]).tolist() == [7, 4, 6, UNKNOWN_ID]
    assert own.decode([7, 4, 0, 6, 3]) == ["hooke", "beats", "reid", "<unk>"]


def test_words_are_counted_by_hand():
    assert count_words(torch.tensor([[1]]), 1) == 2  # a vocabulary of padding alone, and one word
    assert count_words(torch.tensor([[4, 4]]), 5) == 5
    assert count_words(torch.tensor([[4, 6], [5, 0]]), 5) == 7


# ---- properties


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_mixture_sums_to_one_in_every_precision(dtype):
    source, _ = example()
    found = mixture(*random_parts(dtype), source)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.shape == (BATCH, SEQ, 14)
    assert_close(found.exp().sum(-1), torch.ones(BATCH, SEQ, dtype=found.dtype))


def test_only_what_can_neither_be_written_nor_copied_is_impossible():
    source, _ = example()
    impossible = (mixture(*random_parts(), source) == -torch.inf)[:, 0]
    assert impossible.nonzero().tolist() == [[1, 12], [1, 13], [2, 11], [2, 12], [2, 13]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 200.0, 1e4])
def test_the_loss_and_its_gradients_stay_finite_however_sure_the_model_is(dtype, size):
    source, _ = example()
    parts = [(size * part).detach().requires_grad_() for part in random_parts(dtype)]
    log_probs = mixture(*parts, source)
    possible = log_probs > -torch.inf
    assert log_probs[possible].isfinite().all() and not log_probs.isnan().any()
    assert_close(log_probs.exp().sum(-1), torch.ones(BATCH, SEQ))
    log_probs[possible].sum().backward()
    assert all(part.grad.isfinite().all() for part in parts)


def test_an_open_gate_is_the_vocabulary_alone_and_a_closed_one_the_source_alone():
    source, _ = example()
    logits, gate, scores = random_parts()
    written = mixture(logits, torch.full_like(gate, 200), scores, source)
    assert_close(written[..., :VOCAB], logits.log_softmax(-1))
    assert written[..., VOCAB:].exp().max() == 0
    copied = mixture(logits, torch.full_like(gate, -200), scores, source).exp()
    for row in range(BATCH):
        there = set(source[row].tolist()) - {PAD_ID}
        assert (copied[row].sum(0) > 0).nonzero().flatten().tolist() == sorted(there)


def test_padding_of_the_source_changes_nothing():
    net, (source, target) = model(), example()
    alone = net(source[1:2, :5], target[1:2])
    assert_close(net(source, target)[1:2, :, :12], alone, atol=1e-5, rtol=1e-5)


def test_other_names_give_the_same_probabilities_to_the_bit():
    """The model reads each unknown word as unknown: exchanged ids exchange the columns."""
    net, (source, target) = model(), example()
    order = torch.arange(14)
    order[11:] = torch.tensor([12, 13, 11])
    target = target[:1]
    first, second = net(source[:1], target), net(order[source[:1]], order[target])
    assert torch.equal(second[..., order], first)


def test_the_future_of_the_target_changes_nothing():
    net, (source, target) = model(), example()
    changed = target.clone()
    changed[:, 3:] = torch.tensor([[6, 11], [5, 11], [5, 5]])
    a, b = net(source, target), net(source, changed)
    assert torch.equal(a[:, :3], b[:, :3]) and not torch.equal(a[:, 3:], b[:, 3:])


def test_stepping_gives_what_one_pass_gives():
    net, (source, target) = model(), example()
    with torch.no_grad():
        state = net.start(source, max_len=SEQ)
        stepped = torch.stack([net.step(newest, state) for newest in target.T], 1)
        assert_close(stepped, net(source, target), atol=1e-5, rtol=1e-5)


def test_rows_that_are_kept_take_their_sources_along():
    net, (source, target) = model(), example()
    rows = torch.tensor([2, 0, 0])
    with torch.no_grad():
        state, other = net.start(source), net.start(source[rows])
        net.step(target[:, 0], state)
        net.step(target[rows, 0], other)
        state.select(rows)
        assert torch.equal(state.source, source[rows])
        tokens = torch.tensor([9, 12, 4])
        assert_close(net.step(tokens, state), net.step(tokens, other))


def test_beam_and_greedy_write_words_of_the_source_in_evaluation():
    net, (source, _) = model(), example()
    with torch.no_grad():
        net.gate.bias.fill_(-50)
    best = greedy(net, source, max_len=3)
    beams = beam(net, source, n_beams=1, max_len=3)
    for row, answer, (other,) in zip(source, best, beams, strict=True):
        assert torch.equal(answer.tokens, other.tokens) and len(answer.tokens) == 3
        assert set(answer.tokens.tolist()) <= set(row.tolist()) - {PAD_ID}
    assert len(beam(net, source, n_beams=5, max_len=3)[0]) == 5


def test_the_trainer_teaches_it_to_repeat_words_that_have_no_id():
    """Sources are `word own word`, and the answer is the own word: it cannot be written."""
    rng = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(64):
        source = torch.randint(4, VOCAB, (5,), generator=rng)
        place = int(torch.randint(5, (), generator=rng))
        source[place] = VOCAB
        pairs.append((source, torch.tensor([BEGIN_ID, VOCAB, STOP_ID])))
    net = model().train()
    recipe = Recipe(epochs=12, batch_size=16, rate=1e-2, warmup=5, label_smoothing=0.0)
    history = train(net, pairs, recipe, progress=False)
    assert history[-1]["loss"] < 0.1
    found = greedy(net, torch.stack([source for source, _ in pairs]), max_len=3)
    assert all(answer.tokens.tolist() == [VOCAB] for answer in found)


# ---- agreement


def test_the_mixture_is_the_formula_read_literally():
    source, _ = example()
    parts = random_parts(torch.float64)
    assert_close(mixture(*parts, source).exp(), literal(*parts, source, 14))


def test_forward_is_the_mixture_of_its_parts():
    net, (source, target) = model(), example()
    logits, gate, scores = net.parts(source, target)
    assert logits.shape == (BATCH, SEQ, VOCAB)
    assert scores.shape == (BATCH, SEQ, SOURCE) and gate.shape == (BATCH, SEQ)
    assert_close(net(source, target).exp(), literal(logits, gate, scores, source, 14))


def test_pointing_is_pytorchs_attention_over_the_last_blocks_keys():
    net, (source, target) = model(), example()
    source, target = source.clamp(min=4), target.clamp(max=VOCAB - 1)  # no padding, no own words
    memory, mask = net.encode(source)
    queries = net.point(net.decode(target, memory, mask))
    keys = torch.cat(memory[-1][0].unbind(1), -1)
    places = torch.eye(SOURCE).expand(BATCH, -1, -1)
    expected = torch.nn.functional.scaled_dot_product_attention(queries, keys, places)
    assert_close(net.parts(source, target)[2].softmax(-1), expected)


def test_pytorchs_loss_reads_the_log_probabilities_as_logits():
    net, (source, target) = model(), example()
    labels = torch.tensor([[12, 5, 13, 4, 2], [11, 8, 4, 7, 2], [9, 3, 2, 0, 0]])
    log_probs = net(source, target)
    expected = torch.nn.functional.nll_loss(log_probs.transpose(1, 2), labels, ignore_index=PAD_ID)
    assert_close(sequence_loss(log_probs, labels), expected)


# ---- gradients


def test_the_gradients_are_those_of_the_formula():
    source, _ = example()
    ours, theirs = ([p.requires_grad_() for p in random_parts(torch.float64)] for _ in range(2))
    found = mixture(*ours, source)
    possible = found > -torch.inf
    found[possible].sum().backward()
    literal(*theirs, source, 14)[possible].log().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad, b.grad)


def test_all_parts_learn_and_padding_gets_no_gradient():
    net, (source, target) = model(), example()
    labels = torch.tensor([[12, 5, 13, 4, 2], [11, 8, 4, 7, 2], [9, 3, 2, 0, 0]])
    loss = sequence_loss(net(source, target), labels, label_smoothing=0.1)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.gate.weight.grad.abs().max() > 0 and net.point.weight.grad.abs().max() > 0
    assert (net.gate.bias.grad != 0).all()


# ---- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((1, slice(None), PAD_ID), r"only padding in rows \[1\]"),
        ((0, 2, -1), "got ids from -1"),
        ((0, 2, VOCAB + SOURCE), f"0 .. {VOCAB + SOURCE - 1}, got ids from 0 to 18"),
    ],
)
def test_a_bad_source_is_refused(change, message):
    source, target = example()
    row, place, value = change
    source[row, place] = value
    for call in (
        lambda: mixture(*random_parts(), source),
        lambda: model()(source, target),
        lambda: model().start(source),
        lambda: count_words(source, VOCAB),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match=r"nothing to copy: source \(2, 0\)"):
        count_words(torch.zeros(2, 0, dtype=torch.long), VOCAB)
    with pytest.raises(ValueError, match="at least one word"):
        ExtendedVocabulary(word_vocabulary(["beats"]), [])
    with pytest.raises(ValueError, match="empty sequence"):
        ExtendedVocabulary(word_vocabulary(["beats"]), ["beats"]).encode([])


def test_a_vocabulary_without_the_unknown_word_is_refused():
    with pytest.raises(ValueError, match=r"got \('<pad>', '<begin>', '<stop>', 'beats'\)"):
        ExtendedVocabulary(target_vocabulary(["beats"]), ["beats"])


def test_a_target_with_an_id_below_zero_is_refused():
    source, target = example()
    target[2, 1] = -1
    with pytest.raises(ValueError, match="got ids from -1"):
        model()(source, target)


@pytest.mark.parametrize("word", [VOCAB, 13])
def test_a_target_with_a_word_of_another_source_is_refused(word):
    source, target = example()
    target[2, 2] = word
    with pytest.raises(ValueError, match=rf"ids \[{word}\] of targets are not in their sources"):
        model()(source, target)


def test_a_source_without_the_word_to_copy_makes_the_word_unknown():
    """What is in neither place has no id: it is learned, and written, as unknown."""
    own = ExtendedVocabulary(word_vocabulary(["beats", "lost"]), ["lost", "beats"])
    assert own.own == () and own.encode(["reid", "beats"]).tolist() == [UNKNOWN_ID, 4]
    source = torch.tensor([[5, 4]])
    assert count_words(source, VOCAB) == VOCAB
    log_probs = model()(source, torch.tensor([[BEGIN_ID, UNKNOWN_ID]]))
    assert log_probs.shape == (1, 2, VOCAB) and log_probs.isfinite().all()


@pytest.mark.parametrize("outside", [-1, 8])
def test_an_id_of_no_word_is_refused(outside):
    own = ExtendedVocabulary(word_vocabulary(["beats", "lost"]), ["reid", "lost", "hooke"])
    with pytest.raises(ValueError, match=rf"ids \[{outside}\] are not among the 8"):
        own.decode([4, outside])


@pytest.mark.parametrize("sizes", [(11, 13), (4, 4)])
def test_two_vocabularies_or_one_without_words_are_refused(sizes):
    with pytest.raises(ValueError, match=f"got sizes {sizes[0]} and {sizes[1]}"):
        PointerGenerator(Settings(*sizes, d_model=4, n_heads=2))


def test_a_vocabulary_of_one_word_is_enough():
    net = PointerGenerator(Settings(5, 5, d_model=4, n_heads=2, n_layers=1, d_ff=4))
    assert net(torch.tensor([[4, 5]]), torch.tensor([[BEGIN_ID, 5]])).shape == (1, 2, 6)


def test_what_does_not_belong_together_is_refused_with_its_shapes(unchecked_shapes):
    source, _ = example()
    logits, gate, scores = random_parts()
    with pytest.raises(ValueError, match=r"\(3, 5, 11\), \(3, 4\), \(3, 5, 7\), \(3, 7\)$"):
        mixture(logits, gate[:, 1:], scores, source)
    with pytest.raises(ValueError, match=r"got torch.float32, torch.int64, torch.float32$"):
        mixture(logits, gate.long(), scores, source)


# ---- broken on purpose


def test_a_product_in_half_precision_is_caught():
    """Where the label has e^-20, a half-precision product has zero, and its logarithm is -inf."""
    logits = torch.tensor([[[0.0, 0, 0, 0, -20.0]]])
    scores, source = torch.tensor([[[20.0, 0.0]]]), torch.tensor([[5, 4]])
    ours = mixture(logits, torch.zeros(1, 1), scores, source)
    half = 0.5 * logits.half().softmax(-1)
    half[..., 4] += 0.5 * scores.half().softmax(-1)[..., 1]
    assert half[0, 0, 4].log() == -torch.inf
    expected = 0.5 * math.exp(-20) / 4 + 0.5 * math.exp(-20)
    assert_close(ours[0, 0, 4].exp(), torch.tensor(expected), rtol=1e-4, atol=0)


def test_a_sum_relative_to_the_likeliest_word_of_all_is_caught():
    """One scale for all words loses the unlikely ones: here 1e-52 beside 1."""
    logits = torch.tensor([[[120.0, 0, 0, 0, 0]]])
    source, scores = torch.tensor([[0, 4]]), torch.zeros(1, 1, 2)
    gate = torch.full((1, 1), 150.0)
    ours = mixture(logits, gate, scores, source)[0, 0, 4]
    assert_close(ours, torch.tensor(-120.0), atol=1e-3, rtol=0)
    assert torch.tensor(-120.0).exp() == 0


def test_a_gate_the_wrong_way_round_is_caught():
    source, _ = example()
    logits, gate, scores = random_parts()
    inverted = mixture(logits, -gate, scores, source).exp()
    assert (inverted - literal(logits, gate, scores, source, 14)).abs().max() > 0.05
