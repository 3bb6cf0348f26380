"""The experiment on copying: it saves each run, goes on where it stopped, and fits its result."""

import json

import pytest

import copying_runs
from transformer_lit.data import curves


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Three runs on a few reports, into a folder of their own."""
    sizes = {"training reports": 13, "test reports": 3, "epochs": 2, "batch": 5, "warmup": 2}
    sizes |= {"d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 11}
    monkeypatch.setattr(copying_runs, "RECIPE", copying_runs.RECIPE | sizes)
    monkeypatch.setattr(copying_runs, "RESULT", tmp_path / "copying.json")
    monkeypatch.setattr(copying_runs, "LOG", tmp_path / "copying.log")
    monkeypatch.setattr(copying_runs, "SEEDS", (0,))
    return tmp_path / "copying.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    copying_runs.main()
    first = json.loads(small.read_text())
    assert [run["model"] for run in first["runs"]] == ["without", "copying", "copying"]
    assert all(set(run["right"]) == {"known", "rare", "new"} for run in first["runs"])
    *kept, lost = first["runs"]
    marked = [run | {"right": -1} for run in kept]
    small.write_text(json.dumps(first | {"runs": marked}))
    copying_runs.main()
    again = json.loads(small.read_text())["runs"]
    assert [run["right"] for run in again[:2]] == [-1, -1], "a finished run was made again"
    assert again[2]["loss"] == lost["loss"], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    copying_runs.main()
    text = small.read_text().replace('"batch": 5', '"batch": 7')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        copying_runs.main()
    assert small.read_text() == text


def test_new_names_are_in_no_other_group():
    known, rare, new = copying_runs.names()
    assert not set(new) & {*known, *rare} and not set(rare) & set(known)
    assert (len(known), len(rare), len(new)) == (57, 37, 37)


def test_the_saved_runs_are_those_of_this_recipe():
    saved = curves.load("copying")
    assert saved["recipe"] == copying_runs.RECIPE
    found = [(run["model"], run["names_in_training"], run["seed"]) for run in saved["runs"]]
    wanted = [(*pair, seed) for pair in copying_runs.settings() for seed in copying_runs.SEEDS]
    assert sorted(found) == sorted(wanted)
