"""Many machines: processes that share a step, what they send, and one that is killed."""

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as group
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close
from torch.testing._internal.distributed.fake_pg import FakeStore

from transformer_lit import distributed
from transformer_lit.distributed import (
    ALL_GATHER,
    ALL_REDUCE,
    ALONE,
    DATA,
    REDUCE_SCATTER,
    SHARDED,
    TENSOR,
    TRIPS,
    WAYS,
    Machine,
    Traffic,
    command,
    launch,
    metadata,
    predicted,
    read_job,
    ring_bytes,
    share_of_loss,
    start,
    step_operations,
    steps,
    write_job,
)
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.training import Recipe, batch, sequence_loss, teacher_forcing, train

# Vocabularies are odd, so that no table can be cut evenly.
SETTINGS = Settings(
    source_size=11, target_size=13, d_model=20, n_heads=4, n_layers=2, d_ff=28, dropout=0.0,
    max_len=17,
)  # fmt: skip
RECIPE = Recipe(epochs=3, batch_size=5, rate=0.01, warmup=2)
LENGTHS = ((3, 2), (7, 5), (2, 4), (5, 1), (4, 3), (6, 6), (3, 3))


def made_up(n):
    """Pairs of the lengths above, over and over."""
    generator = torch.Generator().manual_seed(3)
    pairs = []
    for i in range(n):
        read, write = LENGTHS[i % len(LENGTHS)]
        target = torch.randint(3, 13, (write,), generator=generator).tolist()
        source = torch.randint(1, 11, (read,), generator=generator)
        pairs.append((source, torch.tensor([BEGIN_ID, *target, STOP_ID])))
    return pairs


PAIRS = made_up(7)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def whole_model(settings=SETTINGS):
    torch.manual_seed(RECIPE.seed)
    return EncoderDecoder(settings).double()


def sizes_of(model):
    source, target = batch(PAIRS, model)
    one = 8 * SETTINGS.d_model
    return {"source_bytes": source.numel() * one, "target_bytes": target[:, 1:].numel() * one}


def by_kind(messages):
    return {kind: sum(size for k, size in messages if k == kind) for kind in TRIPS}


@pytest.fixture
def alone_in_a_group(tmp_path):
    """A group of one process: this one."""
    group.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    group.destroy_process_group()


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "job"
    write_job(folder, SETTINGS, RECIPE, PAIRS)
    return folder


# ---- by hand


@pytest.mark.parametrize(
    ("messages", "world", "sent"),
    [
        ([(ALL_REDUCE, 60)], 2, 60),
        ([(ALL_REDUCE, 60)], 5, 96),
        ([(ALL_GATHER, 60), (REDUCE_SCATTER, 30)], 3, 60),
        ([(ALL_REDUCE, 60)], 1, 0),
        ([], 7, 0),
    ],
)
def test_the_ring_sends_all_pieces_but_its_own_once_or_twice(messages, world, sent):
    assert ring_bytes(messages, world) == pytest.approx(sent)


def test_the_time_is_that_of_the_stops_and_that_of_the_bytes():
    machine = Machine(operations=1.0, bandwidth=10.0, latency=0.25)
    assert machine.seconds([(ALL_REDUCE, 60)], 3) == pytest.approx(4 * 0.25 + 80 / 10)
    assert machine.seconds([(ALL_GATHER, 60)] * 2, 3) == pytest.approx(4 * 0.25 + 80 / 10)
    assert step_operations(7.0, 5.0) == 210


def test_the_line_is_that_of_torchrun():
    line = command("train", Path("runs/x"), "3", n_processes=2, n_nodes=5, endpoint="a:1")
    assert " ".join(line) == (
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=5 --nproc-per-node=2 "
        "--rdzv-backend=c10d --rdzv-endpoint=a:1 --rdzv-id=x --max-restarts=0 "
        "-m transformer_lit.distributed train runs/x 3"
    )


# ---- properties


def test_a_job_is_read_as_it_was_written(job):
    settings, recipe, pairs = read_job(job)
    assert (settings, recipe) == (SETTINGS, RECIPE)
    for found, wanted in zip(pairs, PAIRS, strict=True):
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def test_what_each_way_sends_depends_on_what_the_formula_says():
    model = whole_model()
    places = sizes_of(model)
    two, five = (predicted(model, **places, world=world) for world in (2, 5))
    parameters = sum(p.nbytes for p in model.parameters())
    assert two[DATA] == five[DATA] == [(ALL_REDUCE, parameters)]
    assert two[TENSOR] == five[TENSOR]
    # 13 rows of a table in two pieces are 14, in five 15.
    odd = sum(1 for p in model.parameters() if len(p) % 2) * 8 * 20
    assert odd and by_kind(two[SHARDED])[REDUCE_SCATTER] > parameters
    gathered = by_kind(two[SHARDED])[ALL_GATHER] / parameters
    assert 1 < gathered < 2
    more = predicted(model, **{key: 3 * size for key, size in places.items()}, world=2)
    assert more[DATA] == two[DATA] and more[SHARDED] == two[SHARDED]
    assert by_kind(more[TENSOR])[ALL_REDUCE] == 3 * by_kind(two[TENSOR])[ALL_REDUCE]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_shares_average_to_the_loss_of_the_whole(world):
    model = whole_model()
    source, target = batch(PAIRS, model)
    shown, labels = teacher_forcing(target)
    shares = [share_of_loss(model, source, target, slice(r, None, world)) for r in range(world)]
    assert_close(sum(shares) / world, sequence_loss(model(source, shown), labels))


def test_means_that_are_averaged_plainly_give_another_loss():
    model = whole_model()
    source, target = batch(PAIRS, model)
    shown, labels = teacher_forcing(target)
    rows = [slice(r, None, 2) for r in range(2)]
    means = [sequence_loss(model(source[some], shown[some]), labels[some]) for some in rows]
    whole = sequence_loss(model(source, shown), labels)
    assert abs((sum(means) / 2 - whole).item()) > 1e-3


def test_every_parameter_belongs_to_one_unit_or_to_the_rest():
    model = whole_model()
    found = [id(p) for unit in distributed.units(model) for p in unit.parameters()]
    assert len(found) == len(set(found))
    assert 0 < len(found) < len(list(model.parameters()))


# ---- one process as a group


@pytest.mark.parametrize("way", WAYS)
def test_a_group_of_one_takes_the_steps_of_one_alone(alone_in_a_group, job, way):
    alone, _ = steps(ALONE, job)
    found, about = steps(way, job)
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        assert_close(found[name], value, atol=1e-12, rtol=0, msg=name)
    assert about["held"] == sum(p.numel() for p in whole_model().parameters())


@pytest.mark.parametrize(("way", "world"), [(SHARDED, 2), (SHARDED, 7), (TENSOR, 2), (TENSOR, 4)])
def test_messages_are_those_of_pytorchs_profiler_and_of_the_formula(way, world):
    group.init_process_group("fake", store=FakeStore(), rank=0, world_size=world)
    try:
        model = WAYS[way](whole_model())
        source, target = batch(PAIRS, whole_model())
        with Traffic() as traffic:
            share_of_loss(model, source, target, slice(None)).backward()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            share_of_loss(model, source, target, slice(None)).backward()
    finally:
        group.destroy_process_group()
    counted = sum(event.count for event in profiled.key_averages() if "c10d::" in event.key)
    assert len(traffic.messages) == counted > 0
    formula = predicted(whole_model(), **sizes_of(whole_model()), world=world)[way]
    assert sorted(traffic.messages) == sorted(formula)


@pytest.mark.parametrize("kind", TRIPS)
def test_a_message_of_each_kind_is_seen_with_its_size(alone_in_a_group, kind):
    with Traffic() as traffic:
        distributed.send(kind, 8 * 23)
    assert traffic.messages == [(kind, 8 * 23)]


def test_the_tasks_write_their_results(job, monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    values = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    distributed.main("compare", str(job))
    distributed.main("measure", str(job), "80")
    measured = json.loads((job / "measured.json").read_text())
    assert set(measured) == {f"{kind} 80" for kind in TRIPS} | set(WAYS)
    assert all(seconds >= 0 for seconds, _ in measured.values())
    distributed.main("train", str(job))
    torch.manual_seed(RECIPE.seed)
    wanted = train(EncoderDecoder(SETTINGS), PAIRS, RECIPE, progress=False)
    history = json.loads((job / "history.json").read_text())
    assert [x["loss"] for x in history] == pytest.approx([x["loss"] for x in wanted], abs=1e-5)
    assert not group.is_initialized()


# ---- two processes, and four


@pytest.fixture(scope="module", params=[2, 4])
def compared(request, tmp_path_factory):
    """The steps of several processes and of one: number, results and what is said of them."""
    folder = tmp_path_factory.mktemp("compare")
    write_job(folder, SETTINGS, RECIPE, PAIRS)
    launch("compare", folder, n_processes=request.param)
    alone, _ = steps(ALONE, folder)
    files = {way: folder / f"{way}.safetensors" for way in WAYS}
    results = {way: load_file(path) for way, path in files.items()}
    return request.param, alone, results, {way: metadata(path) for way, path in files.items()}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_gradients_and_weights_are_those_of_one_process(compared, way):
    _, alone, results, _ = compared
    assert results[way].keys() == alone.keys()
    for name, value in alone.items():
        assert_close(results[way][name], value, atol=1e-9, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_what_is_sent_is_what_the_formula_says(compared, way):
    world, _, _, about = compared
    model = whole_model()
    formula = predicted(model, **sizes_of(model), world=world)[way]
    assert by_kind(about[way]["messages"]) == by_kind(formula)
    if way != DATA:  # there PyTorch may put the gradients into several buckets
        assert sorted(map(tuple, about[way]["messages"])) == sorted(formula)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a connection has sent")
@pytest.mark.parametrize("way", WAYS)
def test_what_goes_over_the_wire_is_what_the_ring_sends(compared, way):
    world, _, _, about = compared
    messages, sent = about[way]["messages"], about[way]["sent"]
    # Instead of a reduce-scatter, gloo does an all-reduce.
    gloo = [(ALL_REDUCE if kind == REDUCE_SCATTER else kind, size) for kind, size in messages]
    assert ring_bytes(messages, world) < sent < 1.2 * ring_bytes(gloo, world) + 4000


@pytest.mark.slow
def test_a_sharded_model_is_held_in_pieces_and_a_copied_one_whole(compared):
    world, _, _, about = compared
    total = sum(p.numel() for p in whole_model().parameters())
    assert about[DATA]["held"] == total
    assert total / world <= about[SHARDED]["held"] < 1.15 * total / world
    assert total / world < about[TENSOR]["held"] < total


# ---- killed


def losses(folder):
    return [record["loss"] for record in json.loads((folder / "history.json").read_text())]


def lives(folder):
    """The numbers that the last process had, and how many steps it began under each."""
    return Counter(map(int, (folder / "steps").read_text().split()))


LONG = replace(RECIPE, epochs=40)
STEPS = 40 * 5  # 23 pairs in batches of 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    write_job(folder, replace(SETTINGS, dropout=0.25), LONG, made_up(23))
    launch("train", folder, n_processes=2)
    assert list(lives(folder).values()) == [STEPS]
    return losses(folder)


@pytest.mark.slow
def test_after_a_kill_from_outside_training_goes_on_and_ends_the_same(undisturbed, tmp_path):
    write_job(tmp_path, replace(SETTINGS, dropout=0.25), LONG, made_up(23))
    running = start(command("train", tmp_path, n_processes=2, restarts=1))
    deadline = time.monotonic() + 120
    while not (tmp_path / "state.safetensors").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(*lives(tmp_path), signal.SIGKILL)
    said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert len(lives(tmp_path)) == 2, "it had ended before it was killed"
    # Lost are an epoch, at most, and the step in which it died.
    assert 0 <= sum(lives(tmp_path).values()) - STEPS <= 5 + 1
    assert losses(tmp_path) == pytest.approx(undisturbed, abs=1e-6)


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_without_a_restart_it_fails_and_can_be_resumed(
    undisturbed, tmp_path
):
    write_job(tmp_path, replace(SETTINGS, dropout=0.25), LONG, made_up(23))
    with pytest.raises(RuntimeError, match=r"(?s)train failed:.*SIGKILL"):
        launch("train", tmp_path, "13", n_processes=2)
    assert not (tmp_path / "history.json").exists()
    launch("train", tmp_path, n_processes=2)
    assert list(lives(tmp_path).values()) == [13, STEPS - 10]
    assert losses(tmp_path) == pytest.approx(undisturbed, abs=1e-6)


@pytest.mark.slow
def test_two_nodes_with_the_same_line_train_like_two_processes_of_one(undisturbed, tmp_path):
    write_job(tmp_path, replace(SETTINGS, dropout=0.25), LONG, made_up(23))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    line = command("train", tmp_path, n_processes=1, n_nodes=2, endpoint=endpoint)
    nodes = [start(line), start(line)]
    for node in nodes:
        said, _ = node.communicate(timeout=240)
        assert node.returncode == 0, said
    assert losses(tmp_path) == pytest.approx(undisturbed, abs=1e-6)


# ---- bad input


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("tarin", {}, "task must be one of compare, measure, train, .* got 'tarin'"),
        ("train", {"n_processes": 0}, "n_processes and n_nodes at least 1, .* got 'train', 0, 1"),
        ("train", {"n_nodes": 0}, "got 'train', 2, 0"),
        ("train", {"restarts": -1}, "restarts at least 0, got 'train', 2, 1 and -1"),
    ],
)
def test_a_line_that_makes_no_sense_is_not_written(task, changes, message):
    with pytest.raises(ValueError, match=message):
        command(task, Path("x"), **{"n_processes": 2} | changes)


@pytest.mark.parametrize(("world", "changes"), [(3, {}), (4, {"d_ff": 30})])
def test_heads_and_hidden_units_must_be_shared_evenly(monkeypatch, world, changes):
    monkeypatch.setattr(group, "get_world_size", lambda: world)
    settings = replace(SETTINGS, **changes)
    message = f"{world} processes cannot share 4 heads and d_ff = {settings.d_ff}"
    with pytest.raises(ValueError, match=message):
        distributed.tensor_parallel(whole_model(settings))


@pytest.mark.slow
def test_a_task_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)train failed:.*job\.safetensors"):
        launch("train", tmp_path / "nothing", n_processes=1)


# ---- broken on purpose


@pytest.mark.slow
def test_a_share_that_counts_too_much_is_caught(job, compared):
    """With the plain means of two processes the gradients would not have been those of one."""
    _, alone, _, _ = compared
    model = whole_model()
    source, target = batch(PAIRS, model)
    shown, labels = teacher_forcing(target)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        (sequence_loss(model(source[rows], shown[rows]), labels[rows]) / 2).backward()
    worst = max(
        float((p.grad - alone[f"gradient {name}"]).abs().max())
        for name, p in model.named_parameters()
    )
    assert worst > 1e-3
