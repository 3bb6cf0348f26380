"""The experiment on the order of labels: it goes on where it stopped, and fits its result."""

import itertools
import json

import pytest
import torch

import label_order
from transformer_lit.data import curves


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Three runs of one block, into a folder of their own."""
    recipe = label_order.RECIPE | {
        "training pictures": 13,
        "test pictures": 7,
        "d_model": 8,
        "n_layers": 1,
        "d_ff": 11,
        "batch": 5,
        "epochs": 2,
        "warmup": 2,
    }
    monkeypatch.setattr(label_order, "RECIPE", recipe)
    monkeypatch.setattr(label_order, "RESULT", tmp_path / "label_order.json")
    monkeypatch.setattr(label_order, "LOG", tmp_path / "label_order.log")
    monkeypatch.setattr(label_order, "SEEDS", (0,))
    return tmp_path / "label_order.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    label_order.main()
    first = json.loads(small.read_text())
    assert [run["order"] for run in first["runs"]] == list(label_order.ORDERS)
    kept, lost, _ = first["runs"]
    small.write_text(json.dumps(first | {"runs": [kept | {"sets right": -1}]}))
    label_order.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["sets right"] == -1, "a finished run was made again"
    without_time = [{k: v for k, v in run.items() if k != "seconds"} for run in (again[1], lost)]
    assert without_time[0] == without_time[1], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    label_order.main()
    text = small.read_text().replace('"batch": 5', '"batch": 7')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        label_order.main()
    assert small.read_text() == text


def test_each_label_is_written_once_in_its_order():
    draws = torch.Generator().manual_seed(0)
    assert label_order.ordered(["7", "2"], "left to right", draws) == ["7", "2"]
    assert label_order.ordered(["7", "2"], "by value", draws) == ["2", "7"]
    drawn = {tuple(label_order.ordered(["7", "2"], "at random", draws)) for _ in range(29)}
    assert drawn == {("7", "2"), ("2", "7")}
    assert all(
        label_order.ordered(["5", "5"], order, draws) == ["5"] for order in label_order.ORDERS
    )


def test_a_picture_shows_its_labels_from_left_to_right():
    joined, labels = label_order.pictures("test", 5, 0)
    images, digits = label_order.digits.load("test")
    assert joined.shape == (5, 8, 16)
    for picture, pair in zip(joined, labels, strict=True):
        for half, label in zip((picture[:, :8], picture[:, 8:]), pair, strict=True):
            same = (torch.from_numpy(images) == half).all(-1).all(-1)
            assert label in {str(digit) for digit in digits[same.numpy()]}


def test_the_saved_curves_are_those_of_this_recipe():
    saved = curves.load("label_order")
    assert saved["recipe"] == label_order.RECIPE
    found = {(run["order"], run["seed"]) for run in saved["runs"]}
    assert found == set(itertools.product(label_order.ORDERS, label_order.SEEDS))
    assert len(saved["runs"]) == len(found)
