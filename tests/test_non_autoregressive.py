import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.masking import causal_mask
from transformer_lit.non_autoregressive import (
    NonAutoregressive,
    cut_at_stop,
    is_mixture,
    lowest,
    mask_predict,
    with_length,
)
from transformer_lit.training import Recipe, batch, sequence_loss, teacher_forcing, train

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SOURCE, SEQ, HEADS, D_HEAD = 5, 3, 7, 2, 11
SIZES = {"source_size": 13, "target_size": 17, "d_model": HEADS * D_HEAD, "n_heads": HEADS}
SIZES |= {"n_layers": 2, "d_ff": 19, "dropout": 0.0, "max_len": 23}


split = str.split


def model(kind=NonAutoregressive, **more):
    """A model whose predictions follow what it reads: fresh embeddings would repeat themselves."""
    made = kind(Settings(**SIZES), **more)
    with torch.no_grad():
        for name, parameter in made.decoder.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                parameter.mul_(3)
    return made.eval()


def examples():
    """Sources, and targets with their lengths, of 1 to 5 symbols."""
    pairs = [
        (
            torch.randint(1, 13, (1 + n % 3,)),
            with_length(torch.tensor([BEGIN_ID, *torch.randint(3, 17, (n,)), STOP_ID])),
        )
        for n in (5, 3, 1, 2, 5)
    ]
    source, target = batch(pairs, nn.Linear(1, 1))
    return source, *teacher_forcing(target)


def equal(found, wanted):
    return all(map(torch.equal, found, wanted)) and len(found) == len(wanted)


class Says(NonAutoregressive):
    """Says at each pass what is written here, and remembers what it was given to read."""

    def __init__(self, *passes, probability=0.5):
        super().__init__(Settings(**SIZES))
        self.passes, self.read = list(passes), []
        self.probability = probability

    def fill(self, inputs, memory, memory_mask, visible):
        self.read.append(inputs.tolist())
        symbols = self.passes.pop(0)
        logits = torch.zeros(*inputs.shape, 17)
        for place, (symbol, score) in enumerate(symbols[: inputs.shape[1]]):
            logits[:, place, symbol] = score
        return logits


# ---- values by hand


def test_the_length_stands_behind_the_begin_token():
    assert with_length(torch.tensor([1, 9, 8, 7, 2])).tolist() == [1, 3, 9, 8, 7, 2]


def test_a_room_is_cut_at_its_first_stop_token():
    three = torch.tensor([[5, 6, 4]])  # its room has five places
    said = [(7, 1), (8, 1), (STOP_ID, 1), (9, 1), (STOP_ID, 1)]
    (answer,) = cut_at_stop(Says(said), three)
    assert answer.tolist() == [7, 8]
    (whole,) = cut_at_stop(Says([(7, 1)] * 5), three)
    assert whole.tolist() == [7] * 5
    (nothing,) = cut_at_stop(Says([(STOP_ID, 1)] * 5), three)
    assert nothing.tolist() == []


def test_mask_predict_hides_the_least_certain_places_by_hand():
    """Four symbols in three passes: all are hidden, then 4 * 2 // 3 = 2, then 4 * 1 // 3 = 1."""
    first = [(5, 3.0), (6, 1.0), (7, 2.0), (8, 4.0)]
    second = [(9, 9.0), (10, 1.5), (11, 1.2), (9, 9.0)]  # only places 1 and 2 are asked
    third = [(12, 9.0), (12, 9.0), (13, 0.5), (12, 9.0)]  # only place 2
    net = Says(first, second, third)
    (answer,) = mask_predict(net, torch.tensor([[3, 4]]), n_passes=3, lengths=torch.tensor([4]))
    assert net.read == [[[1, 1, 1, 1]], [[5, 1, 1, 8]], [[5, 10, 1, 8]]]
    assert answer.tolist() == [5, 10, 13, 8]


def test_the_lowest_are_marked_and_of_equal_ones_the_left():
    certainty = torch.tensor([[0.5, 0.1, 0.3, 0.3], [0.2, 0.2, 0.2, torch.inf]])
    found = lowest(certainty, torch.tensor([2, 1])).int().tolist()
    assert found == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert not lowest(certainty, torch.tensor([0, 0])).any()
    many = lowest(torch.arange(300)[None] % 3 / 2, torch.tensor([107]))
    assert many.nonzero()[:, 1].tolist() == sorted([*range(0, 300, 3), *range(1, 22, 3)])


def test_a_mixture_is_like_one_of_two_at_each_place_and_equal_to_none():
    right = [split("IH F EH K T AH D"), split("IY F EH K T IH D"), split("IH F T")]
    assert is_mixture(split("IH F EH K T IH D"), right)
    assert not is_mixture(right[0], right), "a right answer is no mixture"
    assert not is_mixture(split("IH F EH K T EH D"), right), "a phoneme is of neither"
    assert not is_mixture(split("IH F EH K T"), right), "too short for both"
    assert not is_mixture(right[0], right[:1]), "one answer cannot be mixed"
    thirds = ["AA", "BB", "CC"]
    assert is_mixture("AB", thirds) and not is_mixture("ABC", ["AAA", "BBB", "CCC"])


# ---- properties


def test_what_is_hidden_cannot_leak():
    """Nothing is causal here: there is no need, since no label is among the inputs."""
    net, (source, shown, _) = model(), examples()
    others = shown.clone()
    others[:, 2:] = torch.where(shown[:, 2:] > STOP_ID, 3 + (shown[:, 2:] - 2) % 14, shown[:, 2:])
    assert (others != shown).any()
    assert torch.equal(net(source, shown), net(source, others))


def test_a_target_may_end_behind_its_length():
    net, (source, shown, _) = model(), examples()
    assert_close(net(source, shown[:, :2]), net(source, shown)[:, :2])


def test_in_training_no_stop_token_and_no_padding_is_shown():
    net, read = model().train(), set()
    whole = net.fill

    def watched(inputs, *given):
        read.update(inputs.flatten().tolist())
        return whole(inputs, *given)

    net.fill = watched
    net(torch.full((100, 1), 3), torch.tensor([BEGIN_ID, 1, 5, STOP_ID, 0]).expand(100, -1))
    assert read == {BEGIN_ID, 5}


def test_what_is_made_stands_where_the_source_does():
    """What is made without saying where lands on another device here, and does not fit."""
    net, (source, shown, _) = model(), examples()
    with torch.device("meta"):
        assert net.train()(source, shown).isfinite().all()
        for answers in (cut_at_stop(net, source), mask_predict(net, source, n_passes=2)):
            assert all(answer.device == source.device for answer in answers)


def test_each_place_sees_those_behind_it_and_none_that_is_not_there():
    net = model()
    memory = net.encode(torch.randint(1, 13, (BATCH, SOURCE)))
    inputs, visible = torch.full((BATCH, SEQ), BEGIN_ID), torch.full((BATCH,), 5)
    before = net.fill(inputs, *memory, visible)
    inputs[:, 4] = 9
    assert (net.fill(inputs, *memory, visible)[:, 0] != before[:, 0]).any(-1).all()
    inputs[:, 4], inputs[:, 5:] = BEGIN_ID, 9
    assert torch.equal(net.fill(inputs, *memory, visible)[:, :5], before[:, :5])


@pytest.mark.parametrize("write", [cut_at_stop, mask_predict, "three passes"])
def test_a_word_is_written_alone_as_in_any_batch(write):
    if write == "three passes":

        def write(net, source):
            return mask_predict(net, source, n_passes=3)

    net = model()
    source = torch.randint(1, 13, (BATCH, SOURCE))
    source[1, 1:] = source[3, 2:] = 0
    together = write(net, source)
    alone = [write(net, row[row > 0][None])[0] for row in source]
    assert equal(together, alone)
    assert all((answer > STOP_ID).all() for answer in together)


def test_more_passes_than_symbols_change_nothing_but_the_least_certain():
    net = model()
    source, lengths = torch.randint(1, 13, (BATCH, SOURCE)), torch.full((BATCH,), 5)
    one = mask_predict(net, source, lengths=lengths)
    two = mask_predict(net, source, lengths=lengths, n_passes=2)
    for a, b in zip(one, two, strict=True):
        assert int((a != b).sum()) <= 2, "two passes ask 5 // 2 symbols again"
    assert not equal(one, two)


def test_in_training_a_target_is_hidden_whole_or_given_its_length_and_a_share():
    net, read = model().train(), []
    whole, n = net.fill, 11

    def watched(inputs, memory, memory_mask, visible):
        read.extend(zip(inputs.tolist(), visible.tolist(), strict=True))
        return whole(inputs, memory, memory_mask, visible)

    net.fill = watched
    torch.manual_seed(0)
    source = torch.randint(1, 13, (600, SOURCE))
    shown = torch.randint(3, 17, (600, n + 2))
    shown[:, 0], shown[:, 1] = BEGIN_ID, n
    logits = net(source, shown)
    assert logits.shape == (600, n + 2, 17)
    given = [row for row, (_, visible) in zip(range(600), read, strict=True) if visible == n]
    assert {visible for _, visible in read} == {n, SOURCE + 2}
    assert 240 < len(given) < 360
    shares = []
    for row, (inputs, visible) in enumerate(read):
        known = [i for i, symbol in enumerate(inputs) if symbol != BEGIN_ID]
        assert [inputs[i] for i in known] == [int(shown[row, 2 + i]) for i in known]
        assert visible == n or not known, "the room tells no symbol"
        shares += [len(known) / n] if visible == n else []
    thirds = [sum(low <= s < low + 1 / 3 for s in shares) for low in (0, 1 / 3, 2 / 3)]
    assert min(thirds) > len(given) / 5, "small and large shares are about as frequent"


def test_the_length_is_told_by_the_source_alone():
    net, (source, shown, _) = model(), examples()
    changed = shown.clone()
    changed[:, 1] = 1
    assert torch.equal(net(source, shown)[:, 0], net(source, changed)[:, 0])
    lengths = net.length_logits(*net.encode(source))
    assert_close(net(source, shown)[:, 0], lengths)
    told = [len(answer) for answer in mask_predict(net, source)]
    assert told == (lengths[:, 1:].argmax(-1) + 1).tolist()


def test_writing_leaves_the_model_in_training_as_it_was():
    net, source = model().train(), torch.tensor([[3, 4]])
    mask_predict(net, source)
    cut_at_stop(net, source)
    assert net.training


def test_the_trainer_teaches_it_three_words():
    pairs = [
        (torch.tensor([1 + i, 2 + i]), with_length(torch.tensor([1, *range(4 + i, 7 + 2 * i), 2])))
        for i in range(3)
    ]
    torch.manual_seed(0)
    net = NonAutoregressive(Settings(**SIZES))
    train(net, pairs, Recipe(epochs=150, batch_size=3, rate=0.01, warmup=5), progress=False)
    source, target = batch(pairs, net)
    wanted = [row[2 : 2 + int(row[1])] for row in target]
    assert equal(mask_predict(net, source), wanted)
    assert equal(mask_predict(net, source, n_passes=3), wanted)


# ---- agreement


class Causal(NonAutoregressive):
    """As the class it comes from, but no place sees those behind it."""

    def may_see(self, visible, seq):
        return super().may_see(visible, seq) & causal_mask(seq)


def test_with_a_causal_mask_it_is_the_decoder_of_chapter_11():
    theirs = model(EncoderDecoder)
    ours = model(Causal)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    source, inputs = torch.randint(1, 13, (BATCH, SOURCE)), torch.randint(3, 17, (BATCH, SEQ))
    inputs[:, 0] = BEGIN_ID
    memory = ours.encode(source)
    found = ours.fill(inputs, *memory, torch.full((BATCH,), SEQ))
    assert_close(found, theirs(source, inputs))
    free = model()
    free.load_state_dict(ours.state_dict())
    assert not torch.allclose(free.fill(inputs, *memory, torch.full((BATCH,), SEQ)), found)


def test_a_block_is_pytorchs_decoder_layer_without_a_target_mask():
    net = model()
    block, d_model = net.decoder[0], SIZES["d_model"]
    theirs = nn.TransformerDecoderLayer(
        d_model, HEADS, SIZES["d_ff"], dropout=0.0, batch_first=True, norm_first=True
    )
    with torch.no_grad():
        for ours, other in (
            (block.self_attention, theirs.self_attn),
            (block.cross_attention, theirs.multihead_attn),
        ):
            three = ours.q_proj, ours.k_proj, ours.v_proj
            other.in_proj_weight.copy_(torch.cat([p.weight for p in three]))
            other.in_proj_bias.copy_(torch.cat([p.bias for p in three]))
            other.out_proj.load_state_dict(ours.out_proj.state_dict())
        theirs.linear1.load_state_dict(block.feed_forward.widen.state_dict())
        theirs.linear2.load_state_dict(block.feed_forward.narrow.state_dict())
    x, y = torch.randn(BATCH, SEQ, d_model), torch.randn(BATCH, SOURCE, d_model)
    visible = torch.tensor([SEQ, 2, 3, 5, 1])
    mask = net.may_see(visible, SEQ)
    everything = torch.ones(BATCH, 1, 1, SOURCE, dtype=torch.bool)
    found, _ = block(x, block.cross_attention.keys_values(y), mask=mask, memory_mask=everything)
    assert_close(found, theirs(x, y, tgt_key_padding_mask=~mask[:, 0, 0]), atol=1e-5, rtol=1e-5)


# ---- gradients


@pytest.mark.parametrize("training", [True, False])
def test_every_part_learns_and_the_length_teaches_the_encoder(training):
    net, (source, shown, labels) = model().train(training), examples()
    torch.manual_seed(0)
    sequence_loss(net(source, shown), labels).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert net.length.weight.grad.abs().max() > 0
    net.zero_grad()
    sequence_loss(net(source, shown)[:, :1], labels[:, :1]).backward()
    assert all(
        p.grad.abs().max() > 0 for n, p in net.encoder.named_parameters() if "k_proj.b" not in n
    )
    assert net.output.bias.grad is None or net.output.bias.grad.abs().max() == 0


# ---- bad input, and what is defined


def test_a_length_of_zero_is_the_empty_answer():
    net, source = model(), torch.randint(1, 13, (3, SOURCE))
    for n_passes in (1, 3):
        answers = mask_predict(net, source, lengths=torch.tensor([0, 4, 0]), n_passes=n_passes)
        assert [len(answer) for answer in answers] == [0, 4, 0]
        answers = mask_predict(net, source, lengths=torch.tensor([0, 0, 0]), n_passes=n_passes)
        assert [len(answer) for answer in answers] == [0, 0, 0]


def test_none_is_never_the_likeliest_length():
    net, source = model(), torch.randint(1, 13, (3, SOURCE))
    with torch.no_grad():
        net.length.weight.zero_()
        net.length.bias.copy_(torch.tensor([9.0, 1, 2, 8, *[0] * 13]))
    assert [len(answer) for answer in mask_predict(net, source)] == [3, 3, 3]


@pytest.mark.parametrize("longest", [1, 5])
def test_lengths_and_rooms_end_at_the_longest_the_model_can_write(longest):
    net = NonAutoregressive(Settings(**SIZES | {"max_len": longest}), spare=2)
    with torch.no_grad():
        net.length.bias[16] = 99.0
    source = torch.randint(1, 13, (1, longest))
    assert [len(answer) for answer in mask_predict(net, source)] == [longest]
    assert net.room(net.encode(source)[1]).tolist() == [longest]
    assert len(cut_at_stop(net, source)[0]) <= longest


def test_a_target_as_long_as_the_model_can_write_with_its_stop_token_is_taught():
    net = NonAutoregressive(Settings(**SIZES | {"max_len": 5}))
    shown, labels = teacher_forcing(with_length(torch.tensor([1, 6, 7, 8, 9, 2]))[None])
    assert sequence_loss(net(torch.tensor([[3]]), shown), labels).isfinite()


def test_a_target_longer_than_its_room_is_still_taught():
    net, source = model(spare=0).train(), torch.tensor([[3]])
    target = with_length(torch.tensor([1, *range(3, 12), 2]))
    shown, labels = teacher_forcing(target[None])
    for _ in range(5):
        assert sequence_loss(net(source, shown), labels).isfinite()


PADDED = torch.tensor([[3, 4, 5], [0, 0, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: NonAutoregressive(Settings(**SIZES), spare=-1), "spare .* got -1"),
        (lambda net: mask_predict(net, PADDED), r"rows \[1\] of the source are nothing but"),
        (lambda net: cut_at_stop(net, PADDED), r"rows \[1\] of the source are nothing but"),
        (lambda net: cut_at_stop(net, PADDED[:, :0]), "not empty"),
        (lambda net: mask_predict(net, PADDED[:1], n_passes=0), "n_passes .* got 0"),
        (
            lambda net: mask_predict(net, PADDED[:1], lengths=torch.tensor([24])),
            r"length in 0 \.\. 23, got \[24\]",
        ),
        (lambda net: mask_predict(net, PADDED[:1], lengths=torch.tensor([-1])), r"got \[-1\]"),
        (
            lambda net: mask_predict(net, PADDED[:1], lengths=torch.tensor([2, 3])),
            r"each of 1 sources .* got \[2, 3\]",
        ),
        (lambda net: with_length(torch.tensor([1, 2])), r"got \[1, 2\]"),
        (lambda net: with_length(torch.tensor([5, 6, 2])), r"got \[5, 6, 2\]"),
        (lambda net: with_length(torch.tensor([1, 6, 7])), r"got \[1, 6, 7\]"),
        (lambda net: net(PADDED[:1], torch.tensor([[1, 0, 5]])), r"got \[\[1, 0\]\]"),
        (lambda net: net(PADDED[:1], torch.tensor([[5, 1, 5]])), r"got \[\[5, 1\]\]"),
        (lambda net: net(PADDED[:1], torch.tensor([[1]])), r"got \[\[1\]\]"),
        (
            lambda net: net.fill(
                torch.ones(2, 3).long(), *net.encode(PADDED[:1]), torch.ones(1).long()
            ),
            "1 lengths for 2 inputs",
        ),
        (
            lambda net: net.fill(
                torch.ones(2, 3).long(), *net.encode(PADDED[:1]), torch.ones(2).long()
            ),
            "2 targets for 1 sources",
        ),
        (
            lambda net: net.fill(
                torch.ones(1, 3).long(), *net.encode(PADDED[:1]), torch.tensor([4])
            ),
            r"lengths must lie in 0 \.\. 3, got \[4\]",
        ),
        (
            lambda net: net.fill(
                torch.ones(1, 3).long(),
                net.encode(PADDED[:1])[0][:1],
                net.encode(PADDED[:1])[1],
                torch.tensor([3]),
            ),
            "for 1 blocks, the decoder has 2",
        ),
    ],
)
def test_bad_input_is_refused_and_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(model())


# ---- broken on purpose


def test_showing_what_should_be_hidden_is_caught(monkeypatch):
    """With the mask of known symbols inverted, labels leak, and changing one changes its score."""
    net, (source, shown, _) = model(), examples()
    others = shown.clone()
    others[0, 2] = 3 + (shown[0, 2] - 2) % 14
    inverted = [torch.cat([s[:, 2:], s[:, :1]], 1) for s in (shown, others)]
    memory, visible = net.encode(source), shown[:, 1]
    leaky, leaky_too = (net.fill(i, *memory, visible) for i in inverted)
    assert not torch.equal(leaky[0, 0], leaky_too[0, 0])


def test_hiding_the_most_certain_is_caught():
    certainty = torch.tensor([[0.5, 0.1, 0.3]])
    assert (
        lowest(-certainty, torch.tensor([1])).tolist()
        != lowest(certainty, torch.tensor([1])).tolist()
    )
