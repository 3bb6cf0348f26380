"""The experiment on training sizes: it saves each run, goes on, and fits its result."""

import itertools
import json

import pytest
import torch

import digits_by_training_size as experiment
from transformer_lit.data import curves


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two steps on images of noise, into a folder of its own."""
    part = torch.rand(11, 1, 8, 8), torch.arange(11) % 10
    monkeypatch.setattr(experiment, "RECIPE", experiment.RECIPE | {"steps": 2, "batch": 3})
    monkeypatch.setattr(experiment, "RESULT", tmp_path / "digits.json")
    monkeypatch.setattr(experiment, "LOG", tmp_path / "digits.log")
    monkeypatch.setattr(experiment, "SEEDS", (0,))
    monkeypatch.setattr(experiment, "SIZES", (7,))
    monkeypatch.setattr(experiment, "data", lambda part_name: part)
    return tmp_path / "digits.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    experiment.main()
    first = json.loads(small.read_text())
    assert [run["model"] for run in first["runs"]] == list(experiment.RATES)
    assert all(0 <= run["right"] <= 11 for run in first["runs"])
    kept, *lost = first["runs"]
    small.write_text(json.dumps(first | {"runs": [kept | {"right": -1}]}))
    experiment.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["right"] == -1, "a finished run was made again"
    for made, before in zip(again[1:], lost, strict=True):
        assert made["right"] == before["right"], "the same seed gave another run"


def test_all_models_of_a_seed_learn_from_the_same_images(small, monkeypatch, capsys):
    seen = []
    train = experiment.train

    def watched(model, images, labels, **kwargs):
        seen.append(images)
        return train(model, images, labels, **kwargs)

    monkeypatch.setattr(experiment, "train", watched)
    experiment.main()
    plain, moved, *others = seen
    assert len(seen) == 4 and all(len(images) == 7 for images in seen)
    assert all(torch.equal(plain, other) for other in others)
    assert torch.equal(moved, experiment.scrambled(plain, 0))


def test_scrambling_moves_the_pixels_of_all_images_alike():
    images = torch.rand(3, 1, 8, 8)
    moved = experiment.scrambled(images, 5)
    assert not torch.equal(moved, images)
    assert torch.equal(moved.flatten(1).sort().values, images.flatten(1).sort().values)
    assert torch.equal(moved[1:], experiment.scrambled(images[1:], 5))
    assert not torch.equal(moved, experiment.scrambled(images, 7))


def test_the_two_networks_have_about_as_many_parameters():
    sizes = [
        sum(p.numel() for p in experiment.make(model).parameters())
        for model in ("convolution", "attention")
    ]
    assert max(sizes) < 1.25 * min(sizes)


@pytest.mark.parametrize("model", list(experiment.RATES))
def test_each_model_names_digits(model):
    logits = experiment.make(model)(torch.rand(3, 1, 8, 8))
    assert logits.shape == (3, 10) and logits.isfinite().all()


def test_the_saved_curves_are_those_of_this_recipe():
    saved = curves.load("digits_by_training_size")
    assert saved["recipe"] == experiment.RECIPE
    found = [(run["model"], run["size"], run["seed"]) for run in saved["runs"]]
    wanted = itertools.product(experiment.RATES, experiment.SIZES, experiment.SEEDS)
    assert sorted(found) == sorted(wanted)
    assert all(0 <= run["right"] <= 250 for run in saved["runs"])
