"""The experiment on more steps for boxes: its scenes are right, and it fits its result."""

import json

import pytest
import torch

import box_steps
from transformer_lit.data import curves, digits


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One run of one block, into a folder of its own."""
    recipe = box_steps.RECIPE | {
        "training canvases": 13,
        "test canvases": 7,
        "d_model": 8,
        "n_layers": 1,
        "d_ff": 11,
        "batch": 5,
        "epochs": 2,
        "scored every": 1,
        "warmup": 2,
    }
    monkeypatch.setattr(box_steps, "RECIPE", recipe)
    monkeypatch.setattr(box_steps, "RESULT", tmp_path / "box_steps.json")
    monkeypatch.setattr(box_steps, "LOG", tmp_path / "box_steps.log")
    return tmp_path / "box_steps.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    box_steps.main()
    first = json.loads(small.read_text())
    (run,) = first["runs"]
    assert [one["step"] for one in run["scores"]] == [3, 6]
    small.write_text(json.dumps(first | {"runs": [run | {"scores": "kept"}]}))
    box_steps.main()
    (again,) = json.loads(small.read_text())["runs"]
    assert again["scores"] == "kept", "a finished run was made again"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    box_steps.main()
    text = small.read_text().replace('"batch": 5', '"batch": 7')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        box_steps.main()
    assert small.read_text() == text


def test_the_boxes_of_a_scene_hold_all_that_is_black_and_nothing_twice():
    images, labels = map(torch.from_numpy, digits.load("test"))
    draws = torch.Generator().manual_seed(0)
    counts = set()
    for _ in range(31):
        canvas, boxes = box_steps.scene(images, labels, draws)
        covered = torch.zeros(16, 16, dtype=torch.int)
        for box in boxes:
            covered[box.top : box.bottom, box.left : box.right] += 1
        assert not ((canvas > 0.5) & (covered == 0)).any()
        counts.add(len(boxes))
    assert counts <= {1, 2, 3} and len(counts) > 1


def test_the_saved_scores_are_those_of_this_recipe():
    saved = curves.load("box_steps")
    assert saved["recipe"] == box_steps.RECIPE
    assert tuple(run["seed"] for run in saved["runs"]) == box_steps.SEEDS
    assert all(
        [one["step"] for one in run["scores"]] == [1000, 2000, 3000, 4000] for run in saved["runs"]
    )
