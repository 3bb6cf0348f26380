"""The experiment on writing all at once: it saves each run, goes on, and fits its result."""

import itertools
import json

import pytest
import torch

import all_at_once as experiment
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import Entry
from transformer_lit.encoder_decoder import Settings
from transformer_lit.non_autoregressive import NonAutoregressive

MIXED = Entry("tact", (("T", "AE", "K", "T"), ("T", "AH", "K", "D"), ("T", "AE", "K")))
ENTRIES = [
    Entry("cat", (("K", "AE", "T"),)),
    Entry("at", (("AE", "T"), ("AH", "T"))),
    MIXED,
]
SMALL = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 11, "epochs": 2, "batch": 2}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Runs of tiny models on three words, into a folder of their own."""
    recipe = experiment.RECIPE | SMALL | {"warmup": 2}
    parts = dict.fromkeys(("training", "validation"), ENTRIES)
    parts |= {key: [MIXED] for key in ("two answers, trained on", "two answers, held out")}
    monkeypatch.setattr(experiment, "RECIPE", recipe)
    monkeypatch.setattr(experiment, "RESULT", tmp_path / "runs.json")
    monkeypatch.setattr(experiment, "LOG", tmp_path / "runs.log")
    monkeypatch.setattr(experiment, "SEEDS", (0,))
    monkeypatch.setattr(experiment, "PASSES", (1, 2))
    monkeypatch.setattr(experiment, "draw", lambda: parts)
    monkeypatch.setattr(experiment, "taught", lambda words: ([["K", "AE"] for _ in words], "ab12"))
    return tmp_path / "runs.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    experiment.main()
    first = json.loads(small.read_text())
    found = [(run["writes"], run["targets"]) for run in first["runs"]]
    assert found == list(experiment.KINDS)
    assert [run.get("teacher") for run in first["runs"]] == [None] * 3 + ["ab12"] * 2
    assert all(len(run["loss"]) == 2 for run in first["runs"])
    *kept, lost = first["runs"]
    kept[0] |= {"loss": [-1]}
    small.write_text(json.dumps(first | {"runs": kept}))
    experiment.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["loss"] == [-1], "a finished run was made again"
    assert again[-1]["loss"] == lost["loss"], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    small.write_text(json.dumps({"recipe": {"batch": 3}, "runs": []}))
    with pytest.raises(SystemExit, match="another recipe"):
        experiment.main()


def test_answers_can_be_mixed_if_as_long_and_different_at_two_places():
    assert experiment.can_mix(MIXED)
    assert not experiment.can_mix(ENTRIES[0])
    assert not experiment.can_mix(ENTRIES[1]), "with one place there is nothing to mix"


def test_distilled_targets_are_as_many_and_the_teachers(monkeypatch):
    monkeypatch.setattr(experiment, "taught", lambda words: ([[w[0].upper()] for w in words], "x"))
    entries = [Entry("tit", (("T",), ("D",))), Entry("bob", (("B", "AA", "B"),))]
    true, (made, about) = experiment.pairs(entries), experiment.distilled(entries)
    assert about == {"teacher": "x", "answers without end": 0} and len(made) == len(true) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(true, made, strict=True))
    spoken = [experiment.phonemes.decode(target)[1:-1] for _, target in made]
    assert spoken == [["T"], ["T"], ["B"]]


def test_where_the_teacher_comes_to_no_end_a_word_keeps_its_own_target(monkeypatch):
    monkeypatch.setattr(experiment, "taught", lambda words: ([["T"] * 48 for _ in words], "x"))
    made, about = experiment.distilled(ENTRIES)
    assert about["answers without end"] == len(ENTRIES)
    assert all(map(torch.equal, *([t for _, t in p] for p in (made, experiment.pairs(ENTRIES)))))


def test_right_answers_and_mixtures_are_counted_by_hand():
    entries = [MIXED] * 4
    answers = [["T", "AE", "K", "T"], ["T", "AE", "K", "D"], ["T", "AE", "K"], ["T", "AH"]]
    found = experiment.counted(answers, entries)
    assert found == {"words": 4, "right": 2, "mixtures": 1}


def test_told_the_true_lengths_answers_have_them(monkeypatch):
    torch.manual_seed(0)
    settings = Settings(source_size=28, target_size=42, d_model=8, n_heads=2, n_layers=1, d_ff=11)
    model, told = NonAutoregressive(settings).eval(), []
    whole = experiment.mask_predict

    def watched(model, source, **more):
        answers = whole(model, source, **more)
        told.extend(zip((source > 0).sum(1).tolist(), map(len, answers), strict=True))
        return answers

    monkeypatch.setattr(experiment, "mask_predict", watched)
    assert 0 <= experiment.told_lengths(model, 1, {"validation": ENTRIES}) <= 1
    assert sorted(told) == [(2, 2), (3, 3), (4, 4)]


def test_the_saved_runs_are_those_of_this_recipe():
    saved = curves.load("all_at_once")
    assert saved["recipe"] == experiment.RECIPE
    found = {(run["writes"], run["targets"], run["seed"]) for run in saved["runs"]}
    wanted = {
        (*names, seed) for names, seed in itertools.product(experiment.KINDS, experiment.SEEDS)
    }
    assert found == wanted and len(saved["runs"]) == len(found)
    teachers = {run["teacher"] for run in saved["runs"] if run["targets"] == "distilled"}
    assert len(teachers) == 1 and all(len(run["loss"]) == 5 for run in saved["runs"])
