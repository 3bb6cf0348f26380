"""Training: the loss, the rate, the batches, and a loop that can be stopped and go on."""

import itertools
import json
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from transformer_lit import training
from transformer_lit.encoder_decoder import EncoderDecoder, Settings
from transformer_lit.training import (
    Recipe,
    average,
    batch,
    bucketed,
    inverse_sqrt,
    sequence_loss,
    teacher_forcing,
    train,
    up_and_down,
    validation_loss,
    weights,
)

BATCH, SEQ, CLASSES, SOURCE = 3, 5, 7, 11
RECIPE = Recipe(epochs=4, batch_size=5, rate=0.01, warmup=3)
INF = torch.inf


def logits_and_labels():
    """Scores for three sequences, the last two of them padded."""
    labels = torch.randint(1, CLASSES, (BATCH, SEQ))
    labels[1, 3:], labels[2, 1:] = 0, 0
    return torch.randn(BATCH, SEQ, CLASSES, requires_grad=True), labels


def tiny(dropout=0.1, seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 13, "max_len": 16} | sizes
    return EncoderDecoder(Settings(SOURCE, CLASSES, dropout=dropout, **sizes))


def pairs(count=17, seed=0):
    """Sources of 1 to 6 symbols, targets of as many symbols between begin and stop."""
    draws = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(1, 7, (1,), generator=draws))
        source = torch.randint(2, SOURCE, (length,), generator=draws)
        made.append((source, torch.cat([torch.tensor([1]), 3 + source % 4, torch.tensor([2])])))
    return made


def run(model, recipe=RECIPE, data=None, **more):
    return train(model, data or pairs(), recipe, progress=False, **more)


def same(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stopped(Exception):
    """What stands for a power cut."""


def stop_after(epoch):
    def stop(model, record):
        if record["epoch"] == epoch:
            raise Stopped

    return stop


def begun(path, recipe=RECIPE, data=None, **more):
    """Make a checkpoint of two epochs, and return its bytes."""
    with pytest.raises(Stopped):
        run(tiny(), recipe, data, checkpoint=path, after_epoch=stop_after(2), **more)
    return path.read_bytes()


# ---- hand-computed values


def test_what_is_shown_and_what_is_asked_stand_one_place_apart():
    shown, labels = teacher_forcing(torch.tensor([[1, 5, 6, 2], [1, 4, 2, 0]]))
    assert shown.tolist() == [[1, 5, 6], [1, 4, 2]]
    assert labels.tolist() == [[5, 6, 2], [4, 2, 0]]
    assert [part.tolist() for part in teacher_forcing(torch.tensor([[1, 2]]))] == [[[1]], [[2]]]


def test_the_loss_by_hand():
    """Probabilities of the right answer 1/2, 1/4, 1/8: on average two questions of yes or no."""
    probabilities = torch.tensor([[[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.75, 0.125, 0.125]]])
    loss = sequence_loss(probabilities.log(), torch.tensor([[1, 2, 1]]))
    assert_close(loss, torch.tensor(2 * math.log(2)))


def test_smoothing_by_hand():
    """With 4 classes and a share of 0.2 the right answer should get 0.85, the others 0.05."""
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    loss = sequence_loss(probabilities.log()[None, None], torch.tensor([[1]]), label_smoothing=0.2)
    wanted = torch.tensor([0.05, 0.85, 0.05, 0.05])
    assert_close(loss, -(wanted * probabilities.log()).sum())


def test_classes_that_are_impossible_get_no_share():
    logits = torch.tensor([0.6, 0.4, 0.0]).log()[None, None]
    loss = sequence_loss(logits, torch.tensor([[1]]), label_smoothing=0.2)
    assert_close(loss, torch.tensor(-(0.1 * math.log(0.6) + 0.9 * math.log(0.4))))


def test_the_rate_of_the_paper_by_hand():
    rates = [inverse_sqrt(step, d_model=16, warmup=4) for step in (1, 2, 4, 16)]
    assert rates == pytest.approx([1 / 32, 1 / 16, 1 / 8, 1 / 16])


def test_the_rate_up_and_down_by_hand():
    rates = [up_and_down(step, peak=6.0, warmup=2, steps=5) for step in range(1, 6)]
    assert rates == pytest.approx([3, 6, 4, 2, 0])
    assert up_and_down(1, peak=6.0, warmup=1, steps=2) == 6


def test_an_average_by_hand():
    states = [{"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([3.0, 8.0])}]
    assert average(states)["w"].tolist() == [2.0, 5.5]
    halves = [{"w": torch.tensor([60_000.0], dtype=torch.float16)}] * 3
    assert average(halves)["w"].tolist() == [60_000.0], "the sum did not fit"
    assert average(halves)["w"].dtype == torch.float16
    assert average(states[:1])["w"].tolist() == [1.0, 3.0]


# ---- properties


def test_padding_changes_nothing():
    logits, labels = logits_and_labels()
    for smoothing in (0.0, 0.3):
        loss = sequence_loss(logits, labels, label_smoothing=smoothing)
        longer = torch.cat([logits, torch.full((BATCH, 2, CLASSES), 1e9)], dim=1)
        padded = F.pad(labels, (0, 2))
        assert torch.equal(sequence_loss(longer, padded, label_smoothing=smoothing), loss)


@pytest.mark.parametrize("at_padding", [INF, -INF, math.nan])
def test_what_stands_at_padding_is_never_read(at_padding):
    logits, labels = logits_and_labels()
    broken = logits.masked_fill((labels == 0)[..., None], at_padding)
    loss = sequence_loss(broken, labels, label_smoothing=0.1)
    [gradient] = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all()
    assert (gradient[labels == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_half_precision_is_added_up_in_single(dtype):
    logits, labels = logits_and_labels()
    found = sequence_loss(logits.to(dtype), labels)
    assert torch.equal(found, sequence_loss(logits.to(dtype).float(), labels))
    assert sequence_loss(logits.double(), labels).dtype == torch.float64


def test_every_sequence_is_in_one_batch_and_lengths_are_alike():
    lengths = torch.randint(1, 31, (101,)).tolist()
    batches = bucketed(lengths, 7, torch.Generator().manual_seed(0))
    assert sorted(i for rows in batches for i in rows.tolist()) == list(range(101))
    assert sorted(map(len, batches)) == [101 % 7] + [7] * (101 // 7)
    ranges = sorted([min(of), max(of)] for of in ([lengths[i] for i in rows] for rows in batches))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))
    assert len(bucketed([3, 5], 1, torch.Generator())) == 2


def test_batches_are_drawn_anew_and_the_same_from_the_same_seed():
    lengths = [3] * 11 + [5] * 11

    def drawn(seed):
        draws = bucketed(lengths, 5, torch.Generator().manual_seed(seed))
        return [rows.tolist() for rows in draws]

    assert drawn(0) == drawn(0) != drawn(1)
    assert {frozenset(rows) for rows in drawn(0)} != {frozenset(rows) for rows in drawn(1)}


def test_training_learns():
    history = run(tiny(dropout=0.0), replace(RECIPE, epochs=40))
    assert [record["epoch"] for record in history] == list(range(1, 41))
    assert history[-1]["step"] == 40 * 4
    assert history[0]["loss"] > 1.5 > 1.0 > history[-1]["loss"]


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    straight, stopped, resumed = tiny(), tiny(), tiny(seed=1)
    whole = run(straight, validation=pairs(7, seed=1))
    path = tmp_path / "a" / "new" / "folder" / "run.safetensors"
    more = {"validation": pairs(7, seed=1), "checkpoint": path}
    with pytest.raises(Stopped):
        run(stopped, after_epoch=stop_after(3), **more)
    torch.randn(100)  # whatever happens in between
    assert run(resumed, **more) == whole
    assert same(resumed, straight) and not same(stopped, straight)
    assert run(tiny(seed=2), **more) == whole, "a finished run goes nowhere"


def test_a_stop_within_an_epoch_goes_on_from_the_epoch_before(tmp_path, monkeypatch):
    path, calls = tmp_path / "run.safetensors", []

    def loss(*arguments, **more):
        calls.append(1)
        if len(calls) == 10:  # of 4 steps an epoch
            raise Stopped
        return sequence_loss(*arguments, **more)

    monkeypatch.setattr(training, "sequence_loss", loss)
    with pytest.raises(Stopped):
        run(tiny(), checkpoint=path)
    resumed, straight = tiny(), tiny()
    history = run(resumed, checkpoint=path)
    assert history == run(straight) and same(resumed, straight)


def test_the_seed_is_that_of_the_recipe():
    one, other, third = tiny(), tiny(), tiny()
    run(one)
    torch.manual_seed(123)
    run(other)
    run(third, replace(RECIPE, seed=1))
    assert same(one, other) and not same(one, third)


def test_each_epoch_of_each_process_has_random_numbers_of_its_own():
    seen = []

    def note(model, record):
        seen.append(torch.initial_seed())

    for seed, rank in itertools.product([0, 1], [0, 1]):
        recipe = replace(RECIPE, batch_size=17, seed=seed)
        run(tiny(), recipe, rank=rank, world=2, after_epoch=note)
    assert len(set(seen)) == len(seen) == 16


def test_patience_stops_and_puts_the_best_weights_back(tmp_path):
    """The answers of the validation pairs are wrong: what is learned makes their loss worse."""
    wrong = [(source, (target + (target > 2)).clamp(max=6)) for source, target in pairs(7, seed=1)]
    recipe, path = replace(RECIPE, epochs=60, patience=3), tmp_path / "run.safetensors"
    model, kept = tiny(dropout=0.0), []

    def keep(model, record):
        kept.append({name: value.clone() for name, value in weights(model).items()})

    history = run(model, recipe, validation=wrong, checkpoint=path, after_epoch=keep)
    losses = [record["validation loss"] for record in history]
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 3 < 60
    assert all(torch.equal(value, kept[best][name]) for name, value in weights(model).items())
    assert validation_loss(model, wrong, recipe) == pytest.approx(min(losses))

    again = tiny(seed=1)
    assert run(again, recipe, validation=wrong, checkpoint=path) == history
    assert same(again, model)


def test_the_gradient_is_never_longer_than_the_recipe_says(monkeypatch):
    lengths = []

    class AdamW(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            lengths.append(float(torch.cat(grads).norm()))
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", AdamW)
    run(tiny(), replace(RECIPE, clip=0.25))
    assert max(lengths) == pytest.approx(0.25, rel=1e-3)


def test_the_rate_follows_the_schedule_and_the_rest_is_the_papers_and_the_recipes(monkeypatch):
    rates, others = [], set()

    class AdamW(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            [group] = self.param_groups
            rates.append(group["lr"])
            others.add((group["betas"], group["weight_decay"]))
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", AdamW)
    run(tiny(), replace(RECIPE, weight_decay=0.3))
    assert rates == [up_and_down(i, peak=0.01, warmup=3, steps=16) for i in range(1, 17)]
    assert others == {((0.9, 0.98), 0.3)}


@pytest.mark.parametrize("count", [17, 16])
def test_the_shares_of_a_batch_add_up_to_the_whole(count):
    """Each process counts its places; what they average is the gradient of the whole batch."""
    model, data = tiny(dropout=0.0), pairs(count)
    source, target = batch(data, model)
    shown, labels = teacher_forcing(target)

    def gradient(rows, scale):
        loss = sequence_loss(model(source[rows], shown[rows]), labels[rows], label_smoothing=0.1)
        return torch.autograd.grad(loss * scale, list(model.parameters()))

    whole, places = gradient(slice(None), 1), (labels != 0).sum()
    rows = [slice(rank, None, 2) for rank in range(2)]
    parts = [gradient(mine, 2 * (labels[mine] != 0).sum() / places) for mine in rows]
    for one, a, b in zip(whole, *parts, strict=True):
        assert_close((a + b) / 2, one, rtol=1e-4, atol=1e-6)
    plain = [gradient(mine, 1) for mine in rows]
    gaps = [((a + b) / 2 - one).abs().max() for one, a, b in zip(whole, *plain, strict=True)]
    assert max(gaps) > 1e-4, "the shares do not matter here"


@pytest.mark.parametrize("count", [17, 2, 1])
def test_two_processes_take_half_of_each_batch_and_weigh_it(monkeypatch, count):
    """What each process hands to the optimizer, averaged by hand, is the gradient of one alone."""
    seen = []

    class AdamW(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
            raise Stopped

    monkeypatch.setattr(torch.optim, "AdamW", AdamW)
    recipe = replace(RECIPE, batch_size=17, clip=1e9)
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        with pytest.raises(Stopped):
            run(tiny(dropout=0.0), recipe, pairs(count), rank=rank, world=world)
    for one, a, b in zip(*seen, strict=True):
        assert_close((a + b) / 2, one, rtol=1e-4, atol=1e-6)


def test_the_first_loss_is_that_of_the_fresh_model_and_processes_share_it(monkeypatch):
    model, recipe, reduced = tiny(dropout=0.0), replace(RECIPE, batch_size=17), []
    source, target = batch(pairs(), model)
    shown, labels = teacher_forcing(target)
    wanted = sequence_loss(model(source, shown), labels, label_smoothing=0.1).item()
    assert run(model, recipe)[0]["loss"] == pytest.approx(wanted, rel=1e-5)
    monkeypatch.setattr(training.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(training.distributed, "all_reduce", reduced.append)
    parts = [run(tiny(dropout=0.0), recipe, rank=rank, world=2)[0]["loss"] for rank in (0, 1)]
    assert sum(parts) == pytest.approx(wanted, rel=1e-5)
    assert [float(reduced[0]) / 2, float(reduced[4]) / 2] == parts


def test_one_process_is_the_default():
    assert run(tiny()) == run(tiny(), rank=0, world=1)


def test_a_model_shared_among_processes_is_saved_as_if_alone(tmp_path, monkeypatch):
    class Shared(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, source, target):
            return self.module(source, target)

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Shared)
    path, straight, resumed = tmp_path / "run.safetensors", tiny(), tiny(seed=1)
    history = run(Shared(tiny()), checkpoint=path)
    assert run(resumed, checkpoint=path) == history == run(straight)
    assert same(resumed, straight)


def test_only_the_first_process_writes(tmp_path):
    path = tmp_path / "run.safetensors"
    run(tiny(), rank=1, world=2, checkpoint=path)
    assert not path.exists()


def test_the_validation_loss_of_several_batches_is_that_of_all_places_at_once():
    model, data = tiny(dropout=0.5), pairs(7)
    found = validation_loss(model, data, RECIPE)
    source, target = batch(data, model)
    shown, labels = teacher_forcing(target)
    wanted = sequence_loss(model.eval()(source, shown), labels).item()
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_batch_is_made_where_the_model_is():
    assert [part.device.type for part in batch(pairs(), tiny().to("meta"))] == ["meta", "meta"]


def test_a_table_used_twice_is_kept_once():
    model = tiny()
    table = model.target_embedding.weight
    kept = weights(model).values()
    assert sum(value.data_ptr() == table.data_ptr() for value in kept) == 1
    assert sum(v.data_ptr() == table.data_ptr() for v in model.state_dict().values()) == 2


def test_buffers_are_kept_if_they_are_saved():
    model = tiny()
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("made anew", torch.tensor(5), persistent=False)
    assert weights(model).keys() - dict(model.named_parameters()).keys() == {"count"}


def test_progress_is_shown_on_request(capsys, tmp_path):
    path = tmp_path / "run.safetensors"
    begun(path)
    assert capsys.readouterr() == ("", "")
    for checkpoint in (None, path):  # from the start, or from step 8
        train(tiny(), pairs(), RECIPE, checkpoint=checkpoint)
        shown = capsys.readouterr().err
        assert re.search(r"\b16/16 \[.*\d(step/s|s/step), loss=\d\.\d{3}\]", shown), shown
    train(tiny(), pairs(), RECIPE, rank=1, world=2)
    assert capsys.readouterr() == ("", "")


def test_half_precision_trains_too():
    model, seen = tiny(dropout=0.0), set()
    model.register_forward_hook(lambda model, given, logits: seen.add(logits.dtype))
    history = run(model, replace(RECIPE, epochs=20, bfloat16=True))
    assert history[-1]["loss"] < history[0]["loss"] - 0.3
    assert seen == {torch.bfloat16}
    validation_loss(model, pairs(3), RECIPE)
    assert seen == {torch.bfloat16, torch.float32}


# ---- agreement with PyTorch


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_that_of_pytorch(smoothing):
    logits, labels = logits_and_labels()
    ours = sequence_loss(logits, labels, label_smoothing=smoothing)
    theirs = F.cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=0, label_smoothing=smoothing
    )
    assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    assert_close(*gradients)


def test_one_pass_is_one_step_at_a_time():
    """The same loss and the same gradients, from all places at once and from each prefix."""
    model = tiny(dropout=0.0).double()
    source, target = batch(pairs(5), model)
    shown, labels = teacher_forcing(target)
    at_once = sequence_loss(model(source, shown), labels)
    one_by_one = torch.stack(
        [model(source, shown[:, :end])[:, -1] for end in range(1, shown.shape[1] + 1)], dim=1
    )
    stepped = sequence_loss(one_by_one, labels)
    assert_close(stepped, at_once)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(at_once, parameters),
        torch.autograd.grad(stepped, parameters),
        strict=True,
    ):
        assert_close(a, b, rtol=0, atol=1e-6)


# ---- gradients


def test_the_gradient_is_what_was_said_minus_what_is_right():
    logits, labels = logits_and_labels()
    [found] = torch.autograd.grad(sequence_loss(logits, labels), logits)
    real = (labels != 0)[..., None]
    expected = (logits.softmax(-1) - F.one_hot(labels, CLASSES)) * real / real.sum()
    assert_close(found, expected)


def test_an_impossible_class_has_no_gradient_and_spoils_none():
    logits, labels = logits_and_labels()
    impossible = torch.zeros(CLASSES, dtype=torch.bool)
    impossible[0] = True
    for smoothing in (0.0, 0.1):
        loss = sequence_loss(
            logits.masked_fill(impossible, -INF), labels, label_smoothing=smoothing
        )
        [gradient] = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()
        assert (gradient[..., 0] == 0).all()
    theirs = F.cross_entropy(
        logits.masked_fill(impossible, -INF).transpose(1, 2), labels, label_smoothing=0.1
    )
    assert theirs.isinf(), "PyTorch's own is infinite there"


# ---- bad input


@pytest.mark.parametrize("shape", [(3, 1), (3, 0)])
def test_targets_without_a_begin_and_an_answer_are_refused(shape):
    with pytest.raises(ValueError, match=r"at least 2 places, got shape \(3, [01]\)"):
        teacher_forcing(torch.ones(shape, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.ones(3, 4, dtype=torch.long)}, r"\(3, 5, 7\) need one .* got \(3, 4\)"),
        ({"labels": torch.zeros(3, 5, dtype=torch.long)}, "all labels are padding"),
        ({"labels": torch.full((3, 5), 7)}, r"must lie in 0 .. 6, got 7 to 7"),
        ({"labels": torch.full((3, 5), -1)}, r"must lie in 0 .. 6, got -1 to -1"),
        ({"label_smoothing": 1.0}, r"must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"got -0.1"),
        ({"label_smoothing": math.nan}, r"got nan"),
    ],
)
def test_a_loss_of_what_does_not_fit_is_refused(change, message, unchecked_shapes):
    logits, labels = logits_and_labels()
    with pytest.raises(ValueError, match=message):
        sequence_loss(logits, **{"labels": labels} | change)


@pytest.mark.parametrize("change", [{"step": 0}, {"warmup": 0}, {"d_model": 0}])
def test_the_rate_of_the_paper_refuses_what_is_below_one(change):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        inverse_sqrt(**{"step": 1, "d_model": 4, "warmup": 2} | change)


@pytest.mark.parametrize(
    "change", [{"step": 0}, {"step": 6}, {"warmup": 5}, {"peak": 0.0}, {"peak": INF}]
)
def test_the_rate_up_and_down_refuses_what_does_not_fit(change):
    with pytest.raises(ValueError, match=r"must hold, got step"):
        up_and_down(**{"step": 1, "peak": 1.0, "warmup": 2, "steps": 5} | change)


@pytest.mark.parametrize(("lengths", "size"), [([], 3), ([1], 0)])
def test_batches_of_nothing_are_refused(lengths, size):
    with pytest.raises(ValueError, match=f"got {len(lengths)} and {size}"):
        bucketed(lengths, size, torch.Generator())


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"warmup": 0},
        {"rate": 0.0},
        {"clip": 0.0},
        {"patience": 0},
        {"label_smoothing": 1.0},
        {"weight_decay": INF},
        {"rate": INF},
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change):
    (name, value), *_ = change.items()
    with pytest.raises(ValueError, match=rf"must be at least 1.*{name}={value}"):
        Recipe(**{"epochs": 1} | change)


def test_a_recipe_at_its_limits_is_one():
    least = {"epochs": 1, "batch_size": 1, "warmup": 1, "patience": 1}
    assert Recipe(**least, label_smoothing=0.0, weight_decay=0.0, clip=1e-9, rate=1e-9).seed == 0


def test_training_on_nothing_or_with_too_long_a_warm_up_is_refused():
    with pytest.raises(ValueError, match="no pairs"):
        train(tiny(), [], RECIPE)
    with pytest.raises(ValueError, match="warm-up of 16 steps does not fit into 16 steps"):
        run(tiny(), replace(RECIPE, warmup=16))
    with pytest.raises(ValueError, match="patience needs validation pairs"):
        run(tiny(), replace(RECIPE, patience=1))


def test_an_average_of_nothing_or_of_other_names_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        average([])
    with pytest.raises(ValueError, match="the same names, got 2"):
        average([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}])


def refused(path, message, recipe=RECIPE, model=None, data=None):
    """Expect a refusal that leaves the file, the folder and the model as they were."""
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    model = model or tiny(seed=1)
    state = {name: value.clone() for name, value in weights(model).items()}
    with pytest.raises(ValueError, match=message):
        run(model, recipe, data, checkpoint=path)
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == names
    assert all(torch.equal(state[name], value) for name, value in weights(model).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.02}, r"another recipe: rate 0.01 instead of 0.02$"),
        ({"epochs": 7, "seed": 3}, r"epochs 4 instead of 7, seed 0 instead of 3$"),
        ({"label_smoothing": 0.0}, r"label_smoothing 0.1 instead of 0.0$"),
    ],
)
def test_another_recipe_is_refused_and_the_difference_named(tmp_path, change, message):
    path = tmp_path / "run.safetensors"
    begun(path)
    refused(path, message, replace(RECIPE, **change))


def test_another_model_or_other_pairs_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    begun(path)
    refused(path, "another architecture", model=tiny(d_ff=17))
    refused(path, "another architecture", model=tiny(n_layers=2))
    refused(path, "8 steps in 2 epochs, these pairs make 5 an epoch", data=pairs(23))


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "run.safetensors"
    path.write_bytes(begun(path)[:keep])
    refused(path, "run.safetensors is damaged .*: delete it to start anew")


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = begun(path)
    path.write_bytes(whole[:8] + b"#" + whole[9:])
    refused(path, "is damaged")


@pytest.mark.parametrize(
    "about",
    [None, {"recipe": "{}"}, {"history": "[]"}, {"recipe": '{"epochs": 4}', "history": "[]"}],
)
def test_a_foreign_file_is_refused(tmp_path, about):
    path = tmp_path / "run.safetensors"
    save_file({"model.w": torch.zeros(2)}, path, about)
    refused(path, "is no checkpoint of a training run")


def test_a_file_with_what_does_not_belong_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    begun(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors | {"else.w": torch.zeros(2)}, path, about)
    refused(path, "is no checkpoint")
    save_file(tensors, path, about | {"history": "[{"})
    refused(path, "is damaged")
    lost = {name: value for name, value in tensors.items() if "self_norm" not in name}
    save_file(lost, path, about)
    refused(path, "another architecture")


def test_a_stop_between_writing_and_renaming_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    before = begun(path)

    def fail(*args):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", fail)
        with pytest.raises(Stopped):
            run(tiny(), checkpoint=path)
    assert path.read_bytes() == before
    with safe_open(path, "pt") as file:
        assert len(json.loads(file.metadata()["history"])) == 2
    resumed, straight = tiny(seed=1), tiny()
    assert run(resumed, checkpoint=path) == run(straight) and same(resumed, straight)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


# ---- variants broken on purpose


def test_labels_that_are_not_shifted_are_caught():
    """A model that copies what it is shown answers without a loss, and has learned nothing."""
    target = torch.tensor([[1, 5, 6, 4, 2]])
    shown, labels = teacher_forcing(target)
    copies = 50.0 * F.one_hot(shown, CLASSES)
    assert sequence_loss(copies, shown) < 1e-6
    assert sequence_loss(copies, labels) > 10


def test_a_loss_that_counts_padding_is_caught():
    logits, labels = logits_and_labels()
    counted = F.cross_entropy(logits.transpose(1, 2), labels)
    assert (sequence_loss(logits, labels) - counted).abs() > 0.01


def test_an_average_of_the_sequences_averages_is_caught():
    logits, labels = logits_and_labels()
    each = [sequence_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(BATCH)]
    assert (sequence_loss(logits, labels) - torch.stack(each).mean()).abs() > 0.01


def test_a_resume_without_the_optimizers_memory_is_caught(tmp_path):
    path, straight = tmp_path / "run.safetensors", tiny()
    run(straight)
    begun(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    forgotten = {
        name: torch.zeros_like(value) if "exp_avg" in name else value
        for name, value in tensors.items()
    }
    save_file(forgotten, path, about)
    resumed = tiny(seed=1)
    run(resumed, checkpoint=path)
    assert not same(resumed, straight)


def test_a_model_that_sees_what_it_should_answer_is_caught(monkeypatch):
    """Without the causal mask one pass is no longer one step at a time."""
    model = tiny(dropout=0.0)
    monkeypatch.setattr(
        "transformer_lit.encoder_decoder.causal_mask",
        lambda seq: torch.ones(1, 1, seq, seq, dtype=torch.bool),
    )
    source, target = batch(pairs(5), model)
    shown, _ = teacher_forcing(target)
    first = model(source, shown[:, :1])[:, 0]
    assert not torch.allclose(model(source, shown)[:, 0], first, atol=1e-3)


def test_the_model_may_be_of_any_kind():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(CLASSES, CLASSES))

        def forward(self, source, target):
            return F.embedding(target, self.table)

    model = Counts()
    run(model, replace(RECIPE, epochs=20, rate=0.1))
    assert model.table[1, 2] < model.table[1, 3:].min(), "nothing stops right after it began"
