import itertools
import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from transformer_lit import scheduled_sampling
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.scheduled_sampling import (
    ScheduledSampling,
    exponential,
    inverse_sigmoid,
    keeps_truth,
    likeliest,
    linear,
    step_by_step,
    two_pass,
)
from transformer_lit.training import Recipe, sequence_loss, teacher_forcing, train

# Sizes are different primes: a swapped axis cannot fit. (d_model is a multiple of the heads.)
BATCH, SOURCE, SEQ, HEADS, D_HEAD = 5, 3, 7, 2, 11
SIZES = {"source_size": 13, "target_size": 17, "d_model": HEADS * D_HEAD, "n_heads": HEADS}
FORMS = pytest.mark.parametrize("make_inputs", [step_by_step, two_pass])


def model(**settings) -> EncoderDecoder:
    """A model whose predictions follow what it reads: fresh embeddings would repeat themselves."""
    made = EncoderDecoder(Settings(n_layers=2, d_ff=19, dropout=0.0, **SIZES, **settings))
    with torch.no_grad():
        for name, parameter in made.decoder.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                parameter.mul_(3)
    return made.eval()


def example():
    """Sources, and targets of unequal lengths; the first fills its row."""
    source = torch.randint(1, SIZES["source_size"], (BATCH, SOURCE))
    target = torch.randint(3, SIZES["target_size"], (BATCH, SEQ + 1))
    target[:, 0] = BEGIN_ID
    for row, length in enumerate([SEQ, 5, 3, 2, SEQ]):
        target[row, length] = STOP_ID
        target[row, length + 1 :] = 0
    return source, *teacher_forcing(target)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def literal(model, source, shown, keep):
    """The definition: a pass over the whole beginning at each place, gradients in all of them."""
    inputs, logits = shown[:, :1], []
    for place in range(shown.shape[1]):
        logits.append(model(source, inputs)[:, -1])
        if place + 1 < shown.shape[1]:
            own = likeliest(logits[-1])
            following = torch.where(keep[:, place + 1], shown[:, place + 1], own)
            inputs = torch.cat([inputs, following[:, None]], 1)
    return torch.stack(logits, 1), inputs


# ---- values by hand


def test_the_schedules_by_hand():
    assert [linear(i, k=1.0, c=0.25, least=0.1) for i in range(5)] == [1, 0.75, 0.5, 0.25, 0.1]
    assert [linear(i, k=0.5, c=0.25) for i in range(4)] == [0.5, 0.25, 0, 0]
    assert linear(1, k=0.5, c=0.25, least=0.5) == 0.5
    assert [exponential(i, k=0.5) for i in range(4)] == [1, 0.5, 0.25, 0.125]
    assert inverse_sigmoid(0, k=1.0) == pytest.approx(1 / 2)
    assert inverse_sigmoid(0, k=3.0) == pytest.approx(3 / 4)
    assert inverse_sigmoid(6, k=2.0) == pytest.approx(2 / (2 + math.exp(3)))


def test_the_inverse_sigmoid_is_one_half_at_k_log_k():
    for k in (2.0, 7.0, 100.0):
        assert inverse_sigmoid(round(k * math.log(k)), k=k) == pytest.approx(0.5, abs=0.1)


def test_the_likeliest_is_never_padding_begin_or_stop():
    logits = torch.tensor([[9.0, 8, 7, 1, 2], [0, 0, 5, 4, 3]])
    assert likeliest(logits).tolist() == [4, 3]
    assert likeliest(logits[:, :4]).tolist() == [3, 3]


class AddsOne(EncoderDecoder):
    """A decoder that says the number behind the one it reads, and never below 3."""

    def decode(self, target, memory, memory_mask):
        return torch.nn.functional.one_hot((target + 1).clamp(min=3), 17).float()

    def step(self, tokens, state):
        return self.decode(tokens[:, None], None, None)[:, 0]


@pytest.mark.parametrize(("make_inputs", "behind"), [(two_pass, 6), (step_by_step, 4)])
def test_inputs_by_hand(monkeypatch, make_inputs, behind):
    """Behind an own 3, the step by step goes on from the 3, the first pass from the true 5."""
    net = AddsOne(Settings(n_layers=1, **SIZES))
    shown = torch.tensor([[BEGIN_ID, 5, 7, 9, STOP_ID, 0]])
    keep = torch.tensor([[True, False, False, True, True, True]])
    monkeypatch.setattr(scheduled_sampling, "keeps_truth", lambda *_: keep)
    inputs = make_inputs(net, shown, *net.encode(torch.tensor([[1, 2]])), eps=0.5)
    assert inputs.tolist() == [[BEGIN_ID, 3, behind, 9, STOP_ID, 0]]


# ---- properties


@pytest.mark.parametrize(
    "schedule",
    [
        partial(linear, k=0.9, c=0.001, least=0.2),
        partial(exponential, k=0.99),
        partial(inverse_sigmoid, k=5.0),
    ],
)
def test_schedules_fall_within_zero_and_one_and_never_overflow(schedule):
    values = [schedule(step) for step in [*range(2000), 10**7]]
    assert all(0 <= later <= earlier <= 1 for earlier, later in itertools.pairwise(values))
    assert values[0] > 0.8 and values[-1] <= 0.2


def test_the_share_of_the_truth_is_eps_and_special_symbols_always_stay():
    shown = torch.full((100, 101), 5)
    shown[:, 0], shown[:, -2], shown[:, -1] = BEGIN_ID, STOP_ID, 0
    keep = keeps_truth(shown, 0.3, seeded())
    assert keep[:, 0].all() and keep[:, -2:].all()
    assert float(keep[:, 1:-2].float().mean()) == pytest.approx(0.3, abs=0.02)


def test_coins_are_tossed_where_the_symbols_are():
    shown = torch.full((2, 3), 5)
    with torch.device("meta"):  # what is made without saying where lands there, and does not fit
        assert keeps_truth(shown, 0.3).device == shown.device


@FORMS
def test_with_eps_one_the_input_is_the_truth_to_the_bit(make_inputs):
    net, (source, shown, _) = model(), example()
    assert torch.equal(make_inputs(net, shown, *net.encode(source), eps=1.0), shown)


def test_with_eps_zero_the_input_is_what_greedy_decoding_writes():
    net, (source, shown, _) = model(), example()
    shown = shown.where(shown > STOP_ID, 5)  # no padding: every place is free
    shown[:, 0] = BEGIN_ID
    inputs = step_by_step(net, shown, *net.encode(source), eps=0.0)
    for row, answer in zip(inputs, greedy(net, source, max_len=SEQ - 1), strict=True):
        assert len(answer.tokens) > 0
        assert torch.equal(row[1 : 1 + len(answer.tokens)], answer.tokens)


@FORMS
def test_each_input_is_the_truth_or_the_own_prediction(make_inputs):
    net, (source, shown, _) = model(), example()
    memory = net.encode(source)
    inputs = make_inputs(net, shown, *memory, eps=0.5, generator=seeded())
    keep = keeps_truth(shown, 0.5, seeded())
    read = inputs if make_inputs is step_by_step else shown
    own = likeliest(net.decode(read, *memory))
    assert torch.equal(inputs[keep], shown[keep])
    assert torch.equal(inputs[:, 1:][~keep[:, 1:]], own[:, :-1][~keep[:, 1:]])
    assert (inputs != shown).any() and (inputs > STOP_ID).equal(shown > STOP_ID)


def test_the_two_forms_agree_up_to_the_first_own_symbol_and_the_one_behind_it():
    net, (source, shown, _) = model(), example()
    memory = net.encode(source)
    one = step_by_step(net, shown, *memory, eps=0.5, generator=seeded())
    two = two_pass(net, shown, *memory, eps=0.5, generator=seeded())
    for row in range(BATCH):
        changed = (one[row] != shown[row]).nonzero()
        first = int(changed[0]) if len(changed) else SEQ
        assert torch.equal(one[row, : first + 1], two[row, : first + 1])
    assert not torch.equal(one, two)


def test_passes_repeated_become_step_by_step():
    net, (source, shown, _) = model(), example()
    memory, keep = net.encode(source), keeps_truth(shown, 0.3, seeded())
    wanted = step_by_step(net, shown, *memory, eps=0.3, generator=seeded())
    inputs = shown
    for _ in range(SEQ - 1):
        own = likeliest(net.decode(inputs, *memory))
        inputs = torch.cat(
            [shown[:, :1], torch.where(keep[:, 1:], shown[:, 1:], own[:, :-1])], dim=1
        )
    assert torch.equal(inputs, wanted)


def test_the_trainer_learns_the_same_to_the_bit_when_the_truth_is_always_shown():
    pairs = [
        (torch.randint(1, 13, (SOURCE,)), torch.tensor([1, 5 + i, 3 + 2 * i, 2])) for i in range(6)
    ]
    recipe = Recipe(epochs=3, batch_size=3, warmup=2)
    histories, weights = [], []
    for wrapped in (False, True):
        torch.manual_seed(0)
        # Coins take random numbers, and dropout would get others behind them.
        net = EncoderDecoder(Settings(n_layers=1, d_ff=19, dropout=0.0, **SIZES))
        learner = ScheduledSampling(net, schedule=lambda step: 1.0) if wrapped else net
        histories.append([r["loss"] for r in train(learner, pairs, recipe, progress=False)])
        weights.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert histories[0] == histories[1] and histories[0][-1] < histories[0][0]
    assert torch.equal(*weights)


def test_a_resumed_run_goes_on_with_the_right_probability(tmp_path):
    pairs = [(torch.randint(1, 13, (SOURCE,)), torch.tensor([1, 5 + i, 2])) for i in range(6)]
    recipe = Recipe(epochs=2, batch_size=3, warmup=2)
    seen = []

    def run(stop):
        def after_epoch(learner, record):
            if record["epoch"] == stop:
                raise KeyboardInterrupt

        def schedule(step):
            seen.append(step)
            return 0.5

        torch.manual_seed(0)
        net = EncoderDecoder(Settings(n_layers=1, d_ff=19, **SIZES))
        learner = ScheduledSampling(net, schedule=schedule)
        file = tmp_path / "state.safetensors"
        train(learner, pairs, recipe, checkpoint=file, after_epoch=after_epoch, progress=False)

    with pytest.raises(KeyboardInterrupt):
        run(stop=1)
    run(stop=None)
    assert seen == [0, 1, 2, 3]


# ---- agreement


@pytest.mark.parametrize("eps", [0.0, 0.3, 0.7, 1.0])
def test_one_pass_on_the_inputs_has_the_gradients_of_the_definition(eps):
    """Nothing flows through a chosen symbol: all gradient is that of the logits."""
    net, (source, shown, labels) = model().double(), example()
    keep = keeps_truth(shown, eps, seeded())
    logits, wanted = literal(net, source, shown, keep)
    sequence_loss(logits, labels).backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    inputs = step_by_step(net, shown, *net.encode(source), eps=eps, generator=seeded())
    assert torch.equal(inputs, wanted)
    found = net(source, inputs)
    assert_close(found, logits, atol=1e-6, rtol=0)
    sequence_loss(found, labels).backward()
    for name, parameter in net.named_parameters():
        assert_close(parameter.grad, expected[name], atol=1e-6, rtol=0)


# ---- gradients


@FORMS
def test_making_the_inputs_leaves_no_graph_and_the_encoder_still_learns(make_inputs):
    net, (source, shown, labels) = model(), example()
    learner = ScheduledSampling(net, schedule=lambda _: 0.5, make_inputs=make_inputs).train()
    memory = net.encode(source)
    assert not make_inputs(net, shown, *memory, eps=0.5).requires_grad
    sequence_loss(learner(source, shown), labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad.abs().max() > 0 for p in net.encoder.parameters())


def test_in_use_the_wrapper_shows_the_truth_and_does_not_count():
    net, (source, shown, _) = model(), example()
    learner = ScheduledSampling(net, schedule=lambda _: 0.0).eval()
    assert torch.equal(learner(source, shown), net(source, shown))
    assert int(learner.step) == 0
    learner.train()(source, shown)
    assert int(learner.step) == 1


# ---- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear(-1, k=1.0, c=0.1), "got step -1, least 0.0, k 1.0, c 0.1"),
        (lambda: linear(0, k=1.5, c=0.1), "k 1.5"),
        (lambda: linear(0, k=0.1, c=0.1, least=0.5), "least 0.5, k 0.1"),
        (lambda: linear(0, k=1.0, c=0.0), "c 0.0"),
        (lambda: exponential(-1, k=0.5), "got step -1 and k 0.5"),
        (lambda: exponential(0, k=1.0), "k 1.0"),
        (lambda: exponential(0, k=0.0), "k 0.0"),
        (lambda: inverse_sigmoid(-1, k=2.0), "got step -1 and k 2.0"),
        (lambda: inverse_sigmoid(0, k=0.5), "k 0.5"),
        (lambda: keeps_truth(torch.ones(2, 3).long(), 1.5), r"eps must be in \[0, 1\], got 1.5"),
        (lambda: keeps_truth(torch.ones(2, 3).long(), math.nan), "got nan"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_logits_of_no_other_symbols_are_refused():
    with pytest.raises(ValueError, match=r"more than 3 symbols, got torch\.float32"):
        likeliest(torch.zeros(2, 3))


@FORMS
def test_a_target_without_its_begin_token_is_refused(make_inputs):
    net, (source, shown, _) = model(), example()
    shown[3, 0] = 5
    with pytest.raises(ValueError, match=r"rows \[3\] begin with \[5\]"):
        make_inputs(net, shown, *net.encode(source), eps=0.5)


def test_a_schedule_that_leaves_its_bounds_is_refused():
    net, (source, shown, _) = model(), example()
    learner = ScheduledSampling(net, schedule=lambda step: 1.0 - step).train()
    learner(source, shown)
    learner(source, shown)
    with pytest.raises(ValueError, match=r"got -1\.0"):
        learner(source, shown)


# ---- broken on purpose


def test_predictions_that_are_one_place_off_are_caught():
    """Without the shift each place would be shown the answer it is asked for."""
    net, (source, shown, _) = model(), example()
    memory, keep = net.encode(source), keeps_truth(shown, 0.3, seeded())
    own = likeliest(net.decode(shown, *memory))
    unshifted = torch.where(keep, shown, own)
    assert not torch.equal(two_pass(net, shown, *memory, eps=0.3, generator=seeded()), unshifted)


def test_coins_of_the_wrong_polarity_are_caught():
    net, (source, shown, _) = model(), example()
    inverted = step_by_step(net, shown, *net.encode(source), eps=1 - 0.9, generator=seeded())
    right = step_by_step(net, shown, *net.encode(source), eps=0.9, generator=seeded())
    assert (right != shown).sum() < (inverted != shown).sum()
