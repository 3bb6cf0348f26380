"""The experiment on scheduled sampling: it saves each run, goes on, and fits its result."""

import itertools
import json

import pytest
import torch

import scheduled_sampling_runs as experiment
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import Entry
from transformer_lit.encoder_decoder import EncoderDecoder, Settings

ENTRIES = [
    Entry("cat", (("K", "AE", "T"),)),
    Entry("at", (("AE", "T"), ("AH", "T"))),
    Entry("tack", (("T", "AE", "K"),)),
]
SMALL = {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 11, "epochs": 2, "batch": 2}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Runs of a tiny model on three words, into a folder of their own."""
    recipe = experiment.RECIPE | SMALL | {"warmup": 2}
    monkeypatch.setattr(experiment, "RECIPE", recipe)
    monkeypatch.setattr(experiment, "RESULT", tmp_path / "runs.json")
    monkeypatch.setattr(experiment, "LOG", tmp_path / "runs.log")
    monkeypatch.setattr(experiment, "SEEDS", (0,))
    monkeypatch.setattr(experiment, "draw", lambda part, n_words: ENTRIES)
    return tmp_path / "runs.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    experiment.main()
    first = json.loads(small.read_text())
    found = [(run["method"], run["schedule"]) for run in first["runs"]]
    assert found == list(experiment.METHODS)
    assert all(len(run["loss"]) == 2 for run in first["runs"])
    *kept, lost = first["runs"]
    kept[0] |= {"word error rate": -1}
    small.write_text(json.dumps(first | {"runs": kept}))
    experiment.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["word error rate"] == -1, "a finished run was made again"
    assert again[-1]["loss"] == lost["loss"], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    experiment.main()
    text = small.read_text().replace('"batch": 2', '"batch": 3')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        experiment.main()
    assert small.read_text() == text


def test_the_schedules_come_from_one_to_the_least_in_the_given_steps():
    for steps, least in ((500, 0.25), (1565, 0.25), (300, 0.5)):
        made = experiment.schedules(steps, least)
        assert list(made) == ["linear", "exponential", "inverse sigmoid"]
        for schedule in made.values():
            assert schedule(0) > 0.95
            assert schedule(steps) == pytest.approx(least, abs=1e-3)


def test_the_share_of_right_symbols_by_hand():
    """A model that always says K: one place of eleven, and one of them is in *cat*, one *tack*."""
    model = EncoderDecoder(Settings(source_size=31, target_size=42, max_len=9, n_layers=1))

    def says_k(source, shown):
        logits = torch.zeros(*shown.shape, 42)
        logits[..., experiment.phonemes.id_of("K")] = 1
        return logits

    model.forward = says_k
    assert experiment.phonemes_right(model, experiment.pairs(ENTRIES)) == pytest.approx(2 / 11)


def test_the_saved_runs_are_those_of_this_recipe():
    saved = curves.load("scheduled_sampling")
    assert saved["recipe"] == experiment.RECIPE
    found = {(run["method"], run["schedule"], run["seed"]) for run in saved["runs"]}
    wanted = {(*names, seed) for names, seed in itertools.product(experiment.METHODS, (0, 1, 2))}
    assert found == wanted and len(saved["runs"]) == len(found)
    assert all(len(run["loss"]) == saved["recipe"]["epochs"] for run in saved["runs"])
