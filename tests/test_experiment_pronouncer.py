"""The training of the pronouncer: stopped, killed, resumed, shared by two processes, refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import score_pronouncer
import train_pronouncer
from tests.pronouncers import write_pronouncer
from tests.small_pronouncer import FIRST, N_WORDS, RECIPE, SETTINGS, make
from train_pronouncer import ByteDropout
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data.pronunciations import Entry, load
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID, EncoderDecoder, Settings
from transformer_lit.training import average, weights

ROOT = Path(__file__).parents[1]
DROPOUT = 0.25


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in another order differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted, and its records."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "round-2"
    history = make(folder, dropout=DROPOUT)
    torch.set_num_threads(threads)
    return folder, history


def program(*arguments, processes=1):
    """Run `tests/small_pronouncer.py` in one process or several."""
    command = [sys.executable, "-m"]
    if processes > 1:
        run = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += [*run, "-m"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    command += ["tests.small_pronouncer", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def losses(folder):
    """The losses in a run's log, in training and in validation."""
    text = (folder / "log").read_text()
    found = re.findall(r"'loss': ([\d.]+), 'validation loss': ([\d.]+)", text)
    return torch.tensor([[float(value) for value in pair] for pair in found])


def same_result(one, other):
    """The same weights to the bit, in each epoch and in the end."""
    names = [*(f"epoch-{epoch:02}.safetensors" for epoch in (1, 2, 3, 4)), "pronouncer.safetensors"]
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    scored = [json.loads((folder / "pronouncer.json").read_text()) for folder in (one, other)]
    assert scored[0]["scores"] == scored[1]["scores"]
    return True


# ---- a run


def test_a_run_learns_and_leaves_a_checkpoint_that_says_how_it_was_made(whole):
    folder, history = whole
    found = [record["loss"] for record in history]
    assert len(found) == RECIPE.epochs and found[-1] < found[0]
    pronouncer = load_pronouncer(folder / "pronouncer.safetensors")
    about = pronouncer.about
    assert Settings(**about["settings"]) == Settings(**SETTINGS | {"dropout": DROPOUT})
    assert about["recipe"] == asdict(RECIPE) | {
        "averaged": ["epoch-03", "epoch-04"],
        "script": "experiments/train_pronouncer.py",
    }
    assert about["rounds before"] == [
        asdict(FIRST) | {"dropout": DROPOUT / 2, "averaged": ["epoch-01", "epoch-02"]}
    ]
    assert about["scores"].keys() == {"greedy", "beam of 5"}
    words, phonemes = train_pronouncer.scores(pronouncer, load("test")[:N_WORDS])
    greedy = about["scores"]["greedy"]
    assert greedy["words"] == N_WORDS and greedy["part"] == "test"
    assert greedy["word error rate"] == pytest.approx(words, abs=1e-4)
    assert greedy["phoneme error rate"] == pytest.approx(phonemes, abs=1e-4)


def test_the_checkpoint_is_the_average_of_the_last_epochs_in_half_precision(whole):
    folder, _ = whole
    found = load_file(folder / "pronouncer.safetensors")
    wanted = average([load_file(folder / f"epoch-0{epoch}.safetensors") for epoch in (3, 4)])
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert torch.equal(value, wanted[name].half())


def test_the_second_round_begins_with_the_average_of_the_first(whole, tmp_path, monkeypatch):
    plain, begun = train_pronouncer.train, []

    def spy(model, *given, **named):
        begun.append({name: value.clone() for name, value in weights(model).items()})
        return plain(model, *given, **named)

    monkeypatch.setattr(train_pronouncer, "train", spy)
    make(tmp_path / "round-2", dropout=DROPOUT)
    wanted = train_pronouncer.last_average(tmp_path / "round-1", 2)
    names = [file.stem for file in train_pronouncer.epochs_of(tmp_path / "round-1")]
    assert names == ["epoch-01", "epoch-02"] and len(begun) == 2
    assert begun[1].keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in begun[1].items())
    assert not all(torch.equal(value, wanted[name]) for name, value in begun[0].items())


def test_the_log_has_a_line_for_each_epoch(whole):
    folder, history = whole
    wanted = [[record["loss"], record["validation loss"]] for record in history]
    torch.testing.assert_close(losses(folder), torch.tensor(wanted))


def test_a_finished_run_is_not_trained_again(whole, tmp_path):
    folder = tmp_path / "again" / "round-2"
    shutil.copytree(whole[0].parent, folder.parent)
    assert make(folder, dropout=DROPOUT) == whole[1]
    assert contents(folder).keys() == contents(whole[0]).keys() and same_result(folder, whole[0])
    assert (folder / "log").read_bytes() == (whole[0] / "log").read_bytes()


# ---- stopped


@pytest.mark.parametrize("epoch", [1, 3])
def test_stopped_between_state_and_epoch_it_ends_as_if_it_had_not(
    whole, tmp_path, monkeypatch, epoch
):
    save = train_pronouncer.save_epoch

    def stop(state, number, run):
        if run.name == "round-2" and number == epoch:
            raise KeyboardInterrupt
        save(state, number, run)

    monkeypatch.setattr(train_pronouncer, "save_epoch", stop)
    folder = tmp_path / "round-2"
    with pytest.raises(KeyboardInterrupt):
        make(folder, dropout=DROPOUT)
    monkeypatch.undo()
    assert not (folder / f"epoch-0{epoch}.safetensors").exists()
    assert make(folder, dropout=DROPOUT) == whole[1]
    assert same_result(folder, whole[0])


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_ends_as_if_it_had_not(whole, tmp_path):
    n_pairs, folder = len(train_pronouncer.pairs(load("train")[:N_WORDS])), tmp_path / "round-2"
    first, second = (-(-n_pairs // recipe.batch_size) for recipe in (FIRST, RECIPE))
    killed = program(folder, DROPOUT, FIRST.epochs * first + 2 * second + 2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(losses(folder)) == 2 and not (folder / "pronouncer.safetensors").exists()
    done = program(folder, DROPOUT)
    assert done.returncode == 0, done.stderr
    assert same_result(folder, whole[0])
    torch.testing.assert_close(losses(folder), losses(whole[0]), rtol=0, atol=0)


# ---- several processes


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    """Without dropout. The last batch has one row only, so that one of the two has none."""
    n_pairs = len(train_pronouncer.pairs(load("train")[:N_WORDS]))
    assert n_pairs % RECIPE.batch_size == 1
    one, two = tmp_path / "one" / "round-2", tmp_path / "two" / "round-2"
    make(one, dropout=0.0)
    done = program(two, 0.0, processes=2)
    assert done.returncode == 0, done.stderr
    assert len(losses(two)) == RECIPE.epochs, "both wrote to the log, or none"
    torch.testing.assert_close(losses(two), losses(one), rtol=0, atol=1e-4)
    assert sorted(contents(two)) == sorted(contents(one))


@pytest.mark.slow
def test_with_dropout_two_processes_draw_other_zeros_but_learn_alike(whole, tmp_path):
    folder = tmp_path / "round-2"
    done = program(folder, DROPOUT, processes=2)
    assert done.returncode == 0, done.stderr
    difference = (losses(folder) - losses(whole[0])).abs()
    assert 1e-4 < float(difference.max()) < 0.3


# ---- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": replace(RECIPE, rate=0.02)}, "another recipe: rate 0.01 instead of 0.02"),
        ({"recipe": replace(RECIPE, epochs=5)}, "another recipe: epochs 4 instead of 5"),
        ({"d_ff": 29}, "was begun with d_ff 23: delete the folder to start anew"),
        ({"n_heads": 7}, "was begun with n_heads 2: "),  # the same shapes
        ({"dropout": 0.5}, "round-1 was begun with dropout 0.125: "),
        ({"n_words": N_WORDS + 1}, f"was begun with words {N_WORDS}: "),
    ],
)
def test_other_settings_are_refused_and_nothing_is_overwritten(whole, changes, message):
    folder, _ = whole
    before = contents(folder)
    with pytest.raises(ValueError, match=message):
        make(folder, **{"dropout": DROPOUT} | changes)
    after = contents(folder)
    assert after == before


def test_a_damaged_state_is_refused_and_nothing_is_overwritten(whole, tmp_path):
    folder = tmp_path / "round-2"
    shutil.copytree(whole[0].parent, tmp_path, dirs_exist_ok=True)
    state = folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    before = contents(folder)
    with pytest.raises(ValueError, match=r"is damaged .*delete it to start anew"):
        make(folder, dropout=DROPOUT)
    assert contents(folder) == before


def test_epochs_of_another_run_are_not_mixed_in(whole, tmp_path):
    folder = tmp_path / "round-2"
    shutil.copytree(whole[0].parent, tmp_path, dirs_exist_ok=True)
    (folder / "state.safetensors").unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match=r"has epochs, but no state\.safetensors"):
        make(folder, dropout=DROPOUT)
    assert contents(folder) == before


def test_a_folder_without_epochs_cannot_be_finished(tmp_path):
    path = tmp_path / "pronouncer.safetensors"
    with pytest.raises(ValueError, match="has no epochs to average: train first"):
        train_pronouncer.finish(tmp_path, path)
    assert contents(tmp_path) == {}


def test_the_hours_leave_out_a_pause(tmp_path):
    files = []
    for epoch, minutes in enumerate((0, 3, 6, 600, 603)):
        files.append(tmp_path / str(epoch))
        files[-1].touch()
        os.utime(files[-1], (60 * minutes, 60 * minutes))
    assert train_pronouncer.hours(files) == 0.25
    assert train_pronouncer.hours(files, files[:3]) == 0.4
    assert train_pronouncer.hours(files, files[:1]) is None


# ---- its parts


def test_each_pronunciation_is_a_pair_with_begin_and_stop():
    entries = [Entry("ab", (("AE", "B"), ("AH", "B"))), Entry("c", (("S", "IY"),))]
    found = train_pronouncer.pairs(entries)
    assert [train_pronouncer.letters.decode(source) for source, _ in found] == [
        ["a", "b"],
        ["a", "b"],
        ["c"],
    ]
    assert train_pronouncer.phonemes.decode(found[1][1][1:-1]) == ["AH", "B"]
    for _, target in found:
        assert (int(target[0]), int(target[-1])) == (BEGIN_ID, STOP_ID)


def test_any_pronunciation_listed_counts_as_right(tmp_path):
    pronouncer = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    (hypothesis,) = pronouncer.pronounce(["ab"])
    said = tuple(pronouncer.phonemes.decode(hypothesis.tokens))
    wrong = ("ZH", *said[1:]) if said[0] != "ZH" else ("B", *said[1:])
    assert train_pronouncer.scores(pronouncer, [Entry("ab", (wrong, said))]) == (0, 0)
    words, phonemes = train_pronouncer.scores(pronouncer, [Entry("ab", (wrong,))])
    assert words == 1 and phonemes == pytest.approx(1 / len(said))


@pytest.mark.parametrize("p", [0.15, 0.5])
def test_byte_dropout_zeroes_its_share_and_keeps_the_mean(p):
    layer, x = ByteDropout(p), torch.ones(101, 997)
    y = layer(x)
    share = round(256 * p) / 256
    assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(y.mean()) == pytest.approx(1, abs=0.02)
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)))
    assert not torch.equal(layer(x), y), "the same zeros twice"


def test_byte_dropout_passes_gradients_where_it_passed_values():
    x = torch.randn(3, 5, 7, requires_grad=True)  # 105 is no multiple of 8
    y = ByteDropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 2.0))


def test_byte_dropout_keeps_bfloat16_and_does_nothing_when_off():
    x = torch.randn(3, 7, dtype=torch.bfloat16)
    assert ByteDropout(0.5)(x).dtype == torch.bfloat16
    assert ByteDropout(0.5).eval()(x) is x
    assert ByteDropout(0.0)(x) is x


def test_byte_dropout_follows_the_seed():
    found = []
    for seed in (5, 5, 7):
        torch.manual_seed(seed)
        found.append(ByteDropout(0.5)(torch.ones(11, 13)))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_every_dropout_of_the_model_is_replaced():
    model = EncoderDecoder(Settings(**SETTINGS | {"dropout": DROPOUT}))
    before = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    train_pronouncer.with_fast_dropout(model)
    after = [module for module in model.modules() if isinstance(module, ByteDropout)]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    assert len(after) == len(before) > 0
    assert {module.dropped for module in after} == {64}


# ---- the table of scores


def test_the_table_has_a_row_for_each_way_to_write_and_for_phonetisaurus(tmp_path, capsys):
    pronouncer = load_pronouncer(write_pronouncer(tmp_path / "x.safetensors"))
    entries = load("test")[:7]
    rows = score_pronouncer.table(pronouncer, entries)
    assert [row[0] for row in rows] == ["greedy", "beam of 5", "Phonetisaurus, 8-gram"]
    assert rows[0][1:] == train_pronouncer.scores(pronouncer, entries)
    assert rows[1][1:] == train_pronouncer.scores(pronouncer, entries, n_beams=5)
    assert rows[2][1] == score_pronouncer.curves.load("phonetisaurus")["word error rate"]


@pytest.mark.parametrize(("ours", "status"), [(0.2, 0), (0.3, 1)])
def test_the_command_fails_where_the_pronouncer_is_no_better(monkeypatch, capsys, ours, status):
    rows = [("greedy", ours, 0.05), ("beam of 5", ours, 0.05), ("Phonetisaurus", 0.25, 0.06)]
    monkeypatch.setattr(score_pronouncer, "table", lambda *given: rows)
    assert score_pronouncer.main() == status
    printed = capsys.readouterr().out
    assert f"{100 * ours:.2f} %" in printed and "25.00 %" in printed
