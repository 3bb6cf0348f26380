"""The experiment on wiring: the variant does what it says, and the result is of this recipe."""

import itertools
import json

import pytest
import torch
from torch.testing import assert_close

import wiring
from transformer_lit.data import curves
from transformer_lit.encoder_decoder import EncoderDecoder, Settings

SETTINGS = Settings(11, 13, d_model=6, n_heads=2, n_layers=3, d_ff=7, dropout=0.0, max_len=5)
SOURCE = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0]])


def both():
    usual, variant = EncoderDecoder(SETTINGS), wiring.LayerByLayer(SETTINGS)
    variant.load_state_dict(usual.state_dict())
    return usual, variant


def test_each_block_reads_what_a_shorter_encoder_would_give():
    usual, variant = both()
    found, _ = variant.encode(SOURCE)
    for height, (keys, values) in enumerate(found, start=1):
        shorter = Settings(**vars(SETTINGS) | {"n_layers": height})
        model = EncoderDecoder(shorter)
        model.load_state_dict(
            {name: v for name, v in usual.state_dict().items() if name in model.state_dict()}
        )
        expected = model.encode(SOURCE)[0][-1]
        assert_close(keys, expected[0])
        assert_close(values, expected[1])


def test_both_wirings_have_the_same_parameters_and_another_output():
    usual, variant = both()
    assert [p.shape for p in usual.parameters()] == [p.shape for p in variant.parameters()]
    target = torch.tensor([[1, 3, 4], [1, 5, 6], [1, 7, 8]])
    assert (usual(SOURCE, target) - variant(SOURCE, target)).abs().max() > 1e-2


def test_it_makes_the_runs_that_are_missing(monkeypatch, tmp_path, capsys):
    recipe = wiring.RECIPE | {"longest word": 2, "validation words": 3, "steps": 4, "batch": 3}
    recipe |= {"n_layers": 1, "d_model": 8, "d_ff": 11}
    monkeypatch.setattr(wiring, "RECIPE", recipe)
    monkeypatch.setattr(wiring, "RESULT", tmp_path / "wiring.json")
    monkeypatch.setattr(wiring, "LOG", tmp_path / "wiring.log")
    monkeypatch.setattr(wiring, "SEEDS", (0,))
    wiring.main()
    first = json.loads(wiring.RESULT.read_text())
    assert [run["wiring"] for run in first["runs"]] == list(wiring.WIRINGS)
    # With one block there is one wiring: the same seed gives the same run.
    assert first["runs"][0]["words right"] == first["runs"][1]["words right"]
    wiring.main()
    assert json.loads(wiring.RESULT.read_text()) == first


def test_the_saved_runs_are_those_of_this_recipe():
    saved = curves.load("wiring")
    assert saved["recipe"] == wiring.RECIPE
    found = {(run["wiring"], run["seed"]) for run in saved["runs"]}
    assert found == set(itertools.product(wiring.WIRINGS, wiring.SEEDS))
    assert len(saved["runs"]) == len(found)
    assert len({run["parameters"] for run in saved["runs"]}) == 1


@pytest.mark.parametrize("seed", wiring.SEEDS)
def test_no_run_failed(seed):
    runs = [run for run in curves.load("wiring")["runs"] if run["seed"] == seed]
    assert all(run["words right"] > 0.5 for run in runs)
