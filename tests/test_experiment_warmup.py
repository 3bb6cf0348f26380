"""The experiment on warm-up: it saves each run, goes on where it stopped, and fits its result."""

import itertools
import json

import pytest
import torch

import warmup
from transformer_lit.data import curves


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two runs of one block on random letters, into a folder of their own."""
    recipe = warmup.RECIPE | {"steps": 20, "n_layers": 1, "batch": 3}
    ids = torch.randint(2, 11, (7, 5))
    parts = ids, ids, ids, ids, {"n_letters": 11, "n_chunks": 11, "longest": 5}
    monkeypatch.setattr(warmup, "RECIPE", recipe)
    monkeypatch.setattr(warmup, "RESULT", tmp_path / "warmup.json")
    monkeypatch.setattr(warmup, "LOG", tmp_path / "warmup.log")
    monkeypatch.setattr(warmup, "SEEDS", (0,))
    monkeypatch.setattr(warmup, "RATES", (0.01,))
    monkeypatch.setattr(warmup, "WARMUPS", (3,))
    monkeypatch.setattr(warmup, "data", lambda: parts)
    return tmp_path / "warmup.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    warmup.main()
    first = json.loads(small.read_text())
    assert [run["order"] for run in first["runs"]] == ["post-norm", "pre-norm"]
    assert all(len(run["loss"]) == 2 for run in first["runs"])
    kept, lost = first["runs"]
    small.write_text(json.dumps(first | {"runs": [kept | {"letters right": -1}]}))
    warmup.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["letters right"] == -1, "a finished run was made again"
    assert again[1]["loss"] == lost["loss"], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    warmup.main()
    text = small.read_text().replace('"batch": 3', '"batch": 5')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        warmup.main()
    assert small.read_text() == text


def test_the_rate_rises_over_the_warm_up_and_stays(monkeypatch):
    rates = []

    class Adam(torch.optim.Adam):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    ids = torch.randint(2, 11, (7, 5))
    model = warmup.Stack("post-norm", n_letters=11, n_chunks=11, longest=5, n_layers=1)
    warmup.train(model, ids, ids, rate=1.0, warmup=4, steps=6, generator=torch.Generator())
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_saved_curves_are_those_of_this_recipe():
    saved = curves.load("warmup")
    assert saved["recipe"] == warmup.RECIPE
    names = "order", "rate", "warmup", "seed"
    found = {tuple(run[name] for name in names) for run in saved["runs"]}
    wanted = itertools.product(warmup.ORDERS, warmup.RATES, warmup.WARMUPS, warmup.SEEDS)
    assert found == set(wanted) and len(saved["runs"]) == len(found)
    assert all(len(run["loss"]) == saved["recipe"]["steps"] // 10 for run in saved["runs"])
