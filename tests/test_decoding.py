import itertools
import math

import jiwer
import pytest
import sacrebleu
import torch
from torch.testing import assert_close
from transformers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from transformer_lit import decoding
from transformer_lit.decoding import Hypothesis, beam, error_rates, greedy, sample, truncate
from transformer_lit.encoder_decoder import (
    BEGIN_ID,
    PAD_ID,
    STOP_ID,
    EncoderDecoder,
    Settings,
)
from transformer_lit.exercises import decoding as check
from transformer_lit.training import sequence_loss, teacher_forcing
from transformer_lit.vocabulary import pad

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
SOURCE_SIZE, TARGET_SIZE, LETTERS, MAX_LEN = 13, 11, 5, 7
A, B, C = 3, 4, 5
SETTINGS = Settings(
    source_size=SOURCE_SIZE,
    target_size=TARGET_SIZE,
    d_model=14,
    n_heads=2,
    n_layers=2,
    d_ff=23,
    dropout=0.3,
    max_len=MAX_LEN,
)


def model_of(settings: Settings = SETTINGS, *, seed: int = 0) -> EncoderDecoder:
    torch.manual_seed(seed)
    return EncoderDecoder(settings)


def sources() -> torch.Tensor:
    rows = [torch.randint(1, SOURCE_SIZE, (n,)) for n in (LETTERS, 2, 1)]
    return pad(rows).values


class Table(EncoderDecoder):
    """A model whose next symbol depends on the last one alone, by a table of probabilities."""

    def __init__(self, table: dict[int, dict[int, float]], max_len: int = MAX_LEN):
        super().__init__(
            Settings(
                source_size=3, target_size=6, d_model=4, n_heads=2, n_layers=1, d_ff=4,
                max_len=max_len,
            )
        )  # fmt: skip
        self.table = torch.zeros(6, 6)
        for last, row in table.items():
            for symbol, share in row.items():
                self.table[last, symbol] = share

    def step(self, tokens, state):
        super().step(tokens, state)
        return self.table[tokens].log()


# The smallest example of the chapter: the likeliest first letter begins no likeliest text.
TRAP = {
    BEGIN_ID: {A: 0.6, B: 0.4},
    A: {A: 0.3, B: 0.3, STOP_ID: 0.4},
    B: {A: 0.05, B: 0.05, STOP_ID: 0.9},
}
ONE = torch.tensor([[1, 2]])


def teacher_forced(model, source, sequences):
    """The log-probabilities of whole sequences, each with its stop token, in one pass."""
    begin, stop = torch.tensor([BEGIN_ID]), torch.tensor([STOP_ID])
    target = pad([torch.cat([begin, tokens, stop]) for tokens in sequences]).values
    shown, labels = teacher_forcing(target)
    with torch.no_grad():
        scores = model.eval()(source.expand(len(sequences), -1), shown).log_softmax(-1)
    found = scores.gather(-1, labels[..., None])[..., 0]
    return [row[: len(tokens) + 1] for row, tokens in zip(found, sequences, strict=True)]


def every_sequence(n_symbols, max_len):
    """Each that ends with a stop token within max_len symbols, that token counted."""
    symbols = range(3, 3 + n_symbols)
    return [
        torch.tensor(y, dtype=torch.long)
        for n in range(max_len)
        for y in itertools.product(symbols, repeat=n)
    ]


# ---- hand-computed values


def test_greedy_falls_into_the_trap_and_a_beam_of_two_does_not():
    [found] = greedy(Table(TRAP), ONE, max_len=5)
    assert found.tokens.tolist() == [A] and found.stopped
    assert math.exp(found.log_prob) == pytest.approx(0.6 * 0.4)
    [[best, second]] = beam(Table(TRAP), ONE, n_beams=2, max_len=5, alpha=0.0)
    assert best.tokens.tolist() == [B] and math.exp(best.log_prob) == pytest.approx(0.4 * 0.9)
    assert second.tokens.tolist() == [A]


def test_the_score_divides_by_a_power_of_the_length_the_stop_token_counted():
    found = Hypothesis(torch.tensor([A, B]), torch.tensor([-1.0, -2.0, -3.0]), True)
    assert found.log_prob == -6
    assert [found.score(alpha) for alpha in (0.0, 1.0, 2.0)] == [-6, -2, pytest.approx(-6 / 9)]


LOGITS = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"temperature": 0.5}, [0.16, 0.09, 0.0225, 0.01, 0.0025]),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_k": 2}, [4, 3, 0, 0, 0]),
        ({"top_k": 99}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.69}, [4, 3, 0, 0, 0]),
        ({"top_p": 0.71}, [0.4, 0.3, 0.15, 0, 0]),
        ({"top_p": 1.0}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        # Of the first two, 4/7 and 3/7, one is not enough.
        ({"top_k": 2, "top_p": 0.5}, [1, 0, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [4, 3, 0, 0, 0]),
        # Squared and divided by their sum, the first two have 0.877.
        ({"temperature": 0.5, "top_p": 0.87}, [16, 9, 0, 0, 0]),
    ],
)
def test_what_truncation_leaves_by_hand(given, left):
    expected = torch.tensor(left, dtype=torch.float32)
    order = torch.tensor([2, 0, 4, 3, 1])  # the likeliest need not stand first
    assert_close(truncate(LOGITS[:, order], **given).softmax(-1)[0], (expected / sum(left))[order])


def test_of_equally_likely_symbols_the_first_are_kept():
    kept = truncate((torch.arange(300)[None] % 3).float(), top_k=7) > -torch.inf
    assert kept.nonzero()[:, 1].tolist() == [2, 5, 8, 11, 14, 17, 20]
    assert (truncate(torch.zeros(1, 2), top_p=0.5) > -torch.inf).tolist() == [[True, False]]


def test_error_rates_by_hand():
    answers = [["K", "AE", "T"], ["K", "T"], ["D", "AO", "G", "Z"], []]
    listed = [
        [["K", "AE", "T"]],
        [["K", "AE", "T"]],
        [["D", "AA", "G"], ["D", "AO", "G"]],
        [["AH"]],
    ]
    assert error_rates(answers, listed) == (3 / 4, (0 + 1 + 1 + 1) / (3 + 3 + 3 + 1))


def test_the_closest_reference_counts_with_its_length():
    assert error_rates([["A", "B"]], [[["A"], ["A", "C", "D", "E"]]]) == (1.0, 3 / 4)
    assert error_rates([["A", "B"]], [[["A", "C"], ["A"]]]) == (1.0, 1 / 2)
    assert error_rates([["A", "B"]], [[["C", "D", "E"], ["A", "B"]]]) == (0.0, 0.0)


# ---- properties


def test_what_is_made_stands_where_the_source_does():
    """What is made without saying where lands on another device here, and does not fit."""
    model, source = model_of(), sources()
    with torch.device("meta"):
        found = [*greedy(model, source, max_len=3), *sample(model, source, max_len=3)]
        found += itertools.chain(*beam(model, source, n_beams=2, max_len=3))
    assert all(one.tokens.device == one.log_probs.device == source.device for one in found)


def test_no_step_is_taken_once_all_have_stopped():
    shares = {A: 0.5, STOP_ID: 0.5}
    model, steps, seen = Table({BEGIN_ID: shares, A: shares, STOP_ID: shares}), [], set()
    step = model.step
    model.step = lambda tokens, state: steps.append(tokens) or step(tokens, state)
    for _ in range(5):
        steps.clear()
        found = sample(model, ONE.expand(3, -1), max_len=MAX_LEN)
        assert len(steps) == max(len(one.log_probs) for one in found)
        seen.add(len(steps))
    assert len(seen) > 1


class Raised(Table):
    """As the table, but its logits are those of a model that is sure of itself, one per row."""

    def step(self, tokens, state):
        return super().step(tokens, state) + torch.tensor([[300.0], [-300.0]])[: len(tokens)]


def test_a_number_added_to_all_logits_changes_nothing():
    for one, other in zip(
        *(greedy(kind(TRAP), ONE.expand(2, -1), max_len=5) for kind in (Table, Raised)), strict=True
    ):
        assert one.tokens.equal(other.tokens)
        assert_close(one.log_probs, other.log_probs, atol=1e-4, rtol=0)


def test_each_sequence_stops_by_itself_and_nothing_runs_past_max_len():
    source, lengths = sources(), set()
    for seed in range(3):
        model = model_of(seed=seed)
        for max_len in (1, 2, MAX_LEN):
            found = greedy(model, source, max_len=max_len)
            drawn = sample(model, source, max_len=max_len)
            beams = beam(model, source, n_beams=3, max_len=max_len)
            for one in [*found, *drawn, *itertools.chain(*beams)]:
                assert len(one.log_probs) == len(one.tokens) + one.stopped <= max_len
                assert one.stopped or len(one.tokens) == max_len
                assert not set(one.tokens.tolist()) & {PAD_ID, BEGIN_ID, STOP_ID}
            lengths |= {len(one.log_probs) for one in drawn}
    assert len(lengths) > 2


def test_each_row_of_a_batch_is_answered_as_if_alone():
    source = sources()
    for seed in range(2):
        model = model_of(seed=seed)
        together = greedy(model, source, max_len=MAX_LEN)
        beams = beam(model, source, n_beams=3, max_len=MAX_LEN)
        for row, tokens in enumerate(source):
            alone = tokens[tokens != PAD_ID][None]
            [one] = greedy(model, alone, max_len=MAX_LEN)
            assert one.tokens.equal(together[row].tokens) and one.stopped == together[row].stopped
            assert_close(one.log_probs, together[row].log_probs)
            [few] = beam(model, alone, n_beams=3, max_len=MAX_LEN)
            assert [h.tokens.tolist() for h in few] == [h.tokens.tolist() for h in beams[row]]
            for a, b in zip(few, beams[row], strict=True):
                assert_close(a.log_probs, b.log_probs)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_one_beam_is_greedy_decoding(alpha):
    source = sources()
    for seed in range(2):
        model = model_of(seed=seed)
        for one, [best] in zip(
            greedy(model, source, max_len=MAX_LEN),
            beam(model, source, n_beams=1, max_len=MAX_LEN, alpha=alpha),
            strict=True,
        ):
            assert one.tokens.equal(best.tokens) and one.stopped == best.stopped
            assert_close(one.log_probs, best.log_probs)


def test_beams_are_different_and_the_best_comes_first():
    for beams in beam(model_of(), sources(), n_beams=5, max_len=MAX_LEN, alpha=1.0):
        assert 1 <= len(beams) <= 5
        assert len({tuple(one.tokens.tolist()) for one in beams}) == len(beams)
        scores = [one.score(1.0) for one in beams]
        assert scores == sorted(scores, reverse=True)


def test_a_beam_divides_by_the_length_if_not_told_otherwise():
    table = Table(
        {BEGIN_ID: {A: 0.6, B: 0.4}, A: {A: 0.6, STOP_ID: 0.4}, B: {A: 0.1, STOP_ID: 0.9}}
    )

    def order(**given):
        [found] = beam(table, ONE, n_beams=9, max_len=3, **given)
        return [one.tokens.tolist() for one in found]

    assert order(alpha=0.0)[:3] == [[B], [A], [A, A]]
    assert order()[:3] == order(alpha=1.0)[:3] == [[B], [A, A], [A]]
    assert order(alpha=2.0)[:3] == [[A, A], [B], [A]]


def test_what_is_cut_off_is_returned_only_where_nothing_is_whole():
    endless = Table({BEGIN_ID: {A: 0.9, B: 0.1}, A: {A: 0.9, B: 0.1}, B: {A: 0.9, B: 0.1}})
    [beams] = beam(endless, ONE, n_beams=3, max_len=4)
    assert [one.stopped for one in beams] == [False] * 3
    assert beams[0].tokens.tolist() == [A] * 4
    seldom = {BEGIN_ID: {A: 0.99, STOP_ID: 0.01}, A: {A: 1.0}}
    [beams] = beam(Table(seldom), ONE, n_beams=2, max_len=4)
    assert [(one.tokens.tolist(), one.stopped) for one in beams] == [([], True)]


def test_a_beam_wider_than_the_vocabulary_holds_no_impossible_sequence():
    only = Table({BEGIN_ID: {A: 1.0}, A: {STOP_ID: 1.0}})
    [beams] = beam(only, ONE, n_beams=7, max_len=3)
    assert [one.tokens.tolist() for one in beams] == [[A]]
    assert beams[0].log_prob == 0


@pytest.mark.parametrize("was_training", [True, False])
def test_the_model_is_left_as_it_was_and_dropout_is_off_while_it_writes(was_training):
    model, source = model_of().train(was_training), sources()
    first, second = (greedy(model, source, max_len=MAX_LEN) for _ in range(2))
    assert all(a.log_probs.equal(b.log_probs) for a, b in zip(first, second, strict=True))
    beam(model, source, n_beams=2, max_len=3)
    sample(model, source, max_len=3)
    assert model.training == was_training
    with pytest.raises(ValueError, match="padding"):
        greedy(model, torch.zeros(2, 3, dtype=torch.long), max_len=3)
    assert model.training == was_training
    assert not first[0].log_probs.requires_grad


def test_the_same_generator_draws_the_same_and_another_does_not():
    model, source = model_of(), sources()

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        found = sample(model, source, max_len=MAX_LEN, generator=generator)
        return [one.tokens.tolist() for one in found]

    assert draw(0) == draw(0) != draw(1)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [0.16, 0.09, 0.04, 0.01]),
        ({"temperature": 3.0}, [0.4 ** (1 / 3), 0.3 ** (1 / 3), 0.2 ** (1 / 3), 0.1 ** (1 / 3)]),
        ({"top_k": 3}, [4, 3, 2, 0]),
        ({"top_p": 0.65}, [4, 3, 0, 0]),
        ({"temperature": 0.5, "top_k": 2}, [16, 9, 0, 0]),
    ],
)
def test_symbols_are_drawn_as_often_as_their_probability_says(given, left):
    shares = dict(zip((A, B, C, STOP_ID), (0.4, 0.3, 0.2, 0.1), strict=True))
    draws = 5_000
    found = sample(
        Table({BEGIN_ID: shares, A: shares, B: shares, C: shares}),
        ONE.expand(draws, -1),
        max_len=1,
        generator=torch.Generator().manual_seed(0),
        **given,
    )
    first = [one.tokens.tolist() for one in found]
    for symbol, share in zip((A, B, C, None), left, strict=True):
        expected = share / sum(left)
        count = first.count([symbol] if symbol else [])
        assert abs(count - draws * expected) <= 4 * math.sqrt(draws * expected * (1 - expected))


def test_the_log_probabilities_of_what_was_drawn_are_the_models_own():
    shares = {A: 0.7, STOP_ID: 0.3}
    [one] = sample(Table({BEGIN_ID: shares, A: shares}), ONE, max_len=3, top_k=1, temperature=0.1)
    assert_close(one.log_probs, torch.tensor([0.7, 0.7, 0.7]).log())


# ---- agreement


def literal_beam(table, n_beams, max_len, alpha):
    """The search as it is told: lists of (score, log-probability, symbols), whole ones waiting."""
    beams = [(0.0, 0.0, ())]
    for _ in range(max_len):
        following = [one for one in beams if STOP_ID in one[2]]
        for _, log_prob, symbols in (one for one in beams if STOP_ID not in one[2]):
            for symbol, share in table[(BEGIN_ID, *symbols)[-1]].items():
                total = log_prob + math.log(share)
                score = total / (len(symbols) + 1) ** alpha
                following.append((score, total, (*symbols, symbol)))
        beams = sorted(following, reverse=True)[:n_beams]
    return [one for one in beams if STOP_ID in one[2]] or beams


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("n_beams", [2, 3])
def test_a_narrow_beam_is_the_search_as_it_is_told(alpha, n_beams):
    for _ in range(10):
        rows = torch.rand(4, 4).pow(2).softmax(-1).tolist()
        table = {
            last: dict(zip((A, B, C, STOP_ID), row, strict=True))
            for last, row in zip((BEGIN_ID, A, B, C), rows, strict=True)
        }
        [found] = beam(Table(table), ONE, n_beams=n_beams, max_len=3, alpha=alpha)
        wanted = literal_beam(table, n_beams, 3, alpha)
        assert [one.tokens.tolist() for one in found] == [
            [symbol for symbol in symbols if symbol != STOP_ID] for _, _, symbols in wanted
        ]
        for one, (score, log_prob, _) in zip(found, wanted, strict=True):
            assert (one.score(alpha), one.log_prob) == pytest.approx((score, log_prob), abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_a_beam_wide_enough_finds_what_looking_at_everything_finds(alpha):
    n_symbols, max_len = 3, 4
    sizes = {"d_model": 6, "n_heads": 2, "n_layers": 1, "d_ff": 7, "max_len": max_len}
    every = every_sequence(n_symbols, max_len)
    firsts = set()
    for seed in range(3):
        model = model_of(Settings(source_size=7, target_size=3 + n_symbols, **sizes), seed=seed)
        source = torch.randint(1, 7, (1, 3))
        scored = teacher_forced(model, source, every)
        whole = [Hypothesis(y, found, True) for y, found in zip(every, scored, strict=True)]
        whole.sort(key=lambda one: -one.score(alpha))
        # Room for all that are whole, and for all that are cut off.
        n_beams = len(every) + n_symbols**max_len
        [found] = beam(model, source, n_beams=n_beams, max_len=max_len, alpha=alpha)
        assert len(found) == len(every) == 40
        assert_close(
            torch.tensor([one.score(alpha) for one in found]),
            torch.tensor([one.score(alpha) for one in whole]),
        )
        assert found[0].tokens.equal(whole[0].tokens)
        firsts.add(tuple(found[0].tokens.tolist()))
    assert len(firsts) > 1 or alpha == 0


def test_log_probabilities_are_those_of_teacher_forcing():
    model, source = model_of(), sources()[:1]
    found = beam(model, source, n_beams=3, max_len=MAX_LEN)[0]
    found += greedy(model, source, max_len=MAX_LEN)
    found += sample(model, source.expand(20, -1), max_len=MAX_LEN)  # so many that some stop
    assert any(one.stopped for one in found)
    forced = teacher_forced(model, source, [one.tokens[: MAX_LEN - 1] for one in found])
    for one, known in zip(found, forced, strict=True):
        places = len(known) - (not one.stopped)  # what was cut off ends in no stop token
        assert_close(one.log_probs[:places], known[:places])
        if one.stopped:
            target = torch.cat([torch.tensor([BEGIN_ID]), one.tokens, torch.tensor([STOP_ID])])
            shown, labels = teacher_forcing(target[None])
            with torch.no_grad():
                loss = sequence_loss(model.eval()(source, shown), labels)
            assert float(loss) == pytest.approx(-one.score(1.0), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 4, 29])
@pytest.mark.parametrize("top_p", [0.2, 0.9, 1.0])
def test_hugging_face_leaves_the_same(temperature, top_k, top_p):
    logits = 3 * torch.randn(23, 29)
    theirs = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1 else logits
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1 else theirs
    before = logits.clone()
    assert_close(truncate(logits, temperature=temperature, top_k=top_k, top_p=top_p), theirs)
    assert torch.equal(logits, before)


def test_hugging_face_agrees_with_the_exercise_on_min_p():
    assert check.min_p(lambda logits, p: MinPLogitsWarper(p)(None, logits))


def test_jiwer_counts_the_same_over_a_whole_set():
    symbols = ["K", "AE", "T", "S"]
    draw = torch.Generator().manual_seed(0)

    def some(n):
        return [symbols[i] for i in torch.randint(4, (n,), generator=draw)]

    truths = [some(n) for n in (1, 2, 3, 5, 7, 11)]
    answers = [some(n) for n in (2, 2, 5, 3, 7, 13)]
    joined = [" ".join(truth) for truth in truths], [" ".join(answer) for answer in answers]
    words, phonemes = error_rates(answers, [[truth] for truth in truths])
    assert phonemes == pytest.approx(jiwer.wer(*joined))
    assert words == sum(a != t for a, t in zip(answers, truths, strict=True)) / 6


def test_bleu_and_exactness_rank_two_systems_each_their_own_way():
    truths = [list("abcdef"), list("ghijkl")]
    half, never = [list("abcdef"), ["x"]], [list("abcde"), list("ghijk")]

    def bleu(answers):
        lines = [" ".join(answer) for answer in answers]
        return sacrebleu.corpus_bleu(lines, [[" ".join(t) for t in truths]], tokenize="none").score

    # All runs of the second are right: only the penalty exp(1 - 12 / 10) is left.
    assert bleu(never) == pytest.approx(100 * math.exp(1 - 12 / 10))
    assert bleu(never) > bleu(half)
    rates = [error_rates(system, [[t] for t in truths])[0] for system in (half, never)]
    assert rates == [0.5, 1.0]


# ---- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        ({"temperature": -1.0}, "got -1.0"),
        ({"temperature": math.nan}, "temperature must be above 0 and finite, got nan"),
        ({"temperature": math.inf}, "got inf"),
        ({"top_k": 0}, "top_k must be at least 1 and whole, got 0"),
        ({"top_k": -3}, "got -3"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "got 1.5"),
        ({"top_p": -0.5}, "got -0.5"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1, got nan"),
    ],
)
def test_bad_settings_of_sampling_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        truncate(LOGITS, **given)
    with pytest.raises(ValueError, match=message):
        sample(model_of(), sources(), max_len=3, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_beams": 0}, "n_beams must be at least 1, got 0"),
        ({"n_beams": -2}, "got -2"),
        ({"n_beams": 2, "alpha": -0.5}, "alpha must be at least 0 and finite, got -0.5"),
        ({"n_beams": 2, "alpha": math.nan}, "got nan"),
        ({"n_beams": 2, "alpha": math.inf}, "got inf"),
    ],
)
def test_bad_settings_of_a_beam_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        beam(model_of(), sources(), max_len=3, **given)


WRITERS = pytest.mark.parametrize(
    "write",
    [greedy, sample, lambda *given, **kwargs: beam(*given, n_beams=2, **kwargs)],
    ids=["greedy", "sample", "beam"],
)


@WRITERS
@pytest.mark.parametrize("max_len", [0, -1, MAX_LEN + 1])
def test_a_bad_max_len_is_refused(write, max_len):
    with pytest.raises(ValueError, match=f"max_len must lie in 1 .. {MAX_LEN}, got {max_len}"):
        write(model_of(), sources(), max_len=max_len)


@WRITERS
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_source_is_refused(write, shape):
    with pytest.raises(ValueError, match="not empty"):
        write(model_of(), torch.zeros(*shape, dtype=torch.long), max_len=3)


@WRITERS
def test_a_source_of_nothing_but_padding_is_refused(write):
    with pytest.raises(ValueError, match=r"rows \[1\] of the source are nothing but padding"):
        write(model_of(), torch.tensor([[3, 5], [0, 0]]), max_len=3)


@pytest.mark.parametrize(
    ("answers", "references", "message"),
    [
        ([], [], "there must be answers"),
        ([["K"]], [], "got 1 and 0"),
        ([["K"]], [[["K"]], [["K"]]], "got 1 and 2"),
        ([["K"]], [[]], "references that are not empty"),
        ([["K"]], [[["K"], []]], "references that are not empty"),
    ],
)
def test_error_rates_without_references_are_refused(answers, references, message):
    with pytest.raises(ValueError, match=message):
        error_rates(answers, references)


# ---- broken on purpose


def test_a_state_that_does_not_follow_its_beams_is_caught(monkeypatch):
    def keep_order(self, rows):
        """Forget which beginning goes on: take the first rows instead."""
        right(self, torch.arange(len(rows)).clamp(max=len(self.memory_mask) - 1))

    right = decoding.State.select
    source, model = sources(), model_of()

    def agree():
        for row, beams in enumerate(beam(model, source, n_beams=5, max_len=MAX_LEN)):
            forced = teacher_forced(
                model, source[[row]], [one.tokens[: MAX_LEN - 1] for one in beams]
            )
            for one, known in zip(beams, forced, strict=True):
                places = len(known) - (not one.stopped)
                if not torch.allclose(one.log_probs[:places], known[:places], atol=1e-4):
                    return False
        return True

    assert agree()
    monkeypatch.setattr(decoding.State, "select", keep_order)
    assert not agree()


def test_a_cut_that_drops_the_symbol_that_crosses_top_p_is_caught():
    def broken(logits, top_p):
        logits, order = logits.sort(descending=True)
        cut = logits.softmax(-1).cumsum(-1) >= top_p  # the symbol itself counted
        return torch.empty_like(logits).scatter_(-1, order, logits.masked_fill(cut, -torch.inf))

    kept = [int((one(LOGITS, top_p=0.8) > -torch.inf).sum()) for one in (truncate, broken)]
    assert kept == [3, 2]
    assert (broken(LOGITS, top_p=0.3) == -torch.inf).all()  # nothing left to draw from


def test_a_length_that_forgets_the_stop_token_ranks_otherwise():
    short = Hypothesis(torch.tensor([A]), torch.tensor([-1.0, -1.0]), True)
    long = Hypothesis(torch.tensor([A, B, A]), torch.tensor([-0.9] * 4), True)
    assert long.score(1.0) > short.score(1.0)
    assert long.log_prob / len(long.tokens) > short.log_prob / len(short.tokens)
    assert long.score(0.0) < short.score(0.0)
    assert short.score(1.0) != short.log_prob / len(short.tokens)
