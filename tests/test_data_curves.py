"""The stored curves, and the experiments that made those of chapter 07."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

import extrapolation
import position_costs
from transformer_lit.data import curves

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in Path(curves.__file__).parent.glob("*.json"))


# ---- the loader


@pytest.mark.parametrize("name", NAMES)
def test_each_file_says_how_it_was_made(name):
    found = curves.load(name)
    assert found["recipe"] and found["machine"]
    assert {"python", "torch"} <= set(found["versions"])
    assert f"{name}.json" in (ROOT / "experiments" / "README.md").read_text("utf-8")


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"no curves called 'extra'; there are .*'extrapolation'"):
        curves.load("extra")


# ---- past the training length


def test_every_method_ran_with_every_seed_by_todays_recipe():
    found = curves.load("extrapolation")
    assert found["recipe"] == extrapolation.RECIPE
    assert found["lengths"] == list(extrapolation.LENGTHS)
    ran = {(run["method"], run["seed"]) for run in found["runs"]}
    assert ran == set(itertools.product(extrapolation.METHODS, extrapolation.SEEDS))
    assert len(found["runs"]) == len(ran) >= 3 * 8


@pytest.mark.parametrize("method", extrapolation.METHODS)
def test_a_model_sees_nothing_of_the_future_and_differs_in_positions_only(method):
    model = extrapolation.Model(method, vocab_size=11)
    tokens = torch.randint(11, (2, 7))
    changed = tokens.clone()
    changed[:, 5:] = (tokens[:, 5:] + 1) % 11
    with torch.no_grad():
        assert torch.equal(model(tokens)[:, :5], model(changed)[:, :5])
    shared = {name for name, _ in extrapolation.Model("none", vocab_size=11).named_parameters()}
    own = {name for name, _ in model.named_parameters()} - shared
    assert all("position" in name or "absolute" in name for name in own)


def test_a_learned_table_cannot_read_past_its_end():
    model = extrapolation.Model("learned", vocab_size=11)
    with pytest.raises(ValueError, match="rows for max_len = 128 only"):
        model(torch.zeros(1, 129, dtype=torch.long))


def test_perplexity_by_hand():
    """A model that gives each of five symbols the same chance has a perplexity of five."""
    ids = torch.randint(5, (97,))
    found = extrapolation.perplexity(lambda x: torch.zeros(*x.shape, 5), ids, 16, total=96)
    assert math.isclose(found, 5, rel_tol=1e-5)


def test_a_run_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(extrapolation, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(extrapolation, "LOG", tmp_path / "runs" / "log")
    monkeypatch.setattr(extrapolation, "METHODS", ("none", "ALiBi"))
    monkeypatch.setattr(extrapolation, "text", lambda: None)
    made = []

    def run(method, seed, data, *, steps):
        if len(made) == 3 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        made.append((method, seed))
        return [1.0]

    monkeypatch.setattr(extrapolation, "one_run", run)
    with pytest.raises(KeyboardInterrupt):
        extrapolation.main()
    (tmp_path / "again").touch()
    extrapolation.main()
    assert made == list(dict.fromkeys(made)) and len(made) == 2 * len(extrapolation.SEEDS)
    result = json.loads((tmp_path / "result.json").read_text())
    assert [(r["method"], r["seed"]) for r in result["runs"]] == made
    monkeypatch.setattr(extrapolation, "RECIPE", extrapolation.RECIPE | {"steps": 1})
    with pytest.raises(SystemExit, match="another recipe"):
        extrapolation.main()


# ---- costs


def test_bytes_alive_are_counted_once_and_until_they_are_freed():
    counter = position_costs.BytesAlive()
    with counter:
        x = torch.zeros(10)
        y = x.view(2, 5)  # the same memory
        z = torch.zeros(100)
        del z
        torch.zeros(20)
    assert counter.now == 40 and counter.most == 440 and y.numel() == 10


def test_the_costs_of_every_method_are_ratios_to_sinusoids():
    ratios = curves.load("position_costs")["ratios"]
    asked = [(r["method"], r["length"], r["training"]) for r in ratios]
    methods = (*position_costs.ABSOLUTE, *position_costs.RELATIVE)
    assert sorted(asked) == sorted(itertools.product(methods, (512, 1024), (False, True)))
    assert {(r["time"], r["memory"]) for r in ratios if r["method"] == "sinusoidal"} == {(1, 1)}
