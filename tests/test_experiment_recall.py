"""The experiment on recall: its tasks, that it goes on where it stopped, and its stored result."""

import itertools
import json

import pytest
import torch

import recall
from transformer_lit.data import curves

TASKS = [recall.OneDigit(), recall.PhoneBook()]
EACH = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_a_passage_holds_one_digit_and_it_is_the_answer():
    tokens, answers, distance = TASKS[0].draw(101, seeded(), 31)
    assert tokens.shape == (101, 31, 1) and answers.shape == distance.shape == (101, 31)
    digits = tokens[..., 0] < recall.DIGITS
    assert (digits.sum(1) == 1).all() and (answers[:, :-1] == -1).all()
    place = digits.int().argmax(1)
    assert torch.equal(30 - place, distance[:, -1])
    assert torch.equal(tokens[torch.arange(101), place, 0], answers[:, -1])
    assert distance[:, -1].min() == 0 and distance[:, -1].max() == 30


def test_a_phone_book_names_nobody_twice_and_asks_for_what_was_read():
    tokens, answers, distance = TASKS[1].draw(13, seeded(), 11)
    names, digits, asked = tokens.unbind(-1)
    assert all(len(set(row.tolist())) == 11 for row in names)
    for row, place in itertools.product(range(13), range(11)):
        found = place - int(distance[row, place])
        assert 0 <= found <= place
        assert names[row, found] == asked[row, place]
        assert digits[row, found] == answers[row, place]


@EACH
def test_draws_repeat_with_their_seed(task):
    for first, second in zip(task.draw(7, seeded(3)), task.draw(7, seeded(3)), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [*recall.MODELS, "wide LSTM"])
@EACH
def test_a_model_sees_nothing_of_the_future(task, kind):
    model = recall.Recall(kind, task.fields)
    tokens, _, _ = task.draw(2, seeded(), 11)
    other, _, _ = task.draw(2, seeded(1), 11)
    other[:, :7] = tokens[:, :7]
    with torch.no_grad():
        same = model(tokens)[:, :7] - model(other)[:, :7]
    assert same.abs().max() < 1e-5


def test_recall_by_distance_by_hand():
    class Recent:
        """Knows the digit at its own place, and says 0 otherwise."""

        def __call__(self, tokens):
            names, digits, asked = tokens.unbind(-1)
            said = torch.where(names == asked, digits, 0)
            return torch.nn.functional.one_hot(said, recall.DIGITS).double()

    found = recall.recalled(Recent(), TASKS[1], count=500, seq=5)
    assert found[0] == 1 and all(0.03 < share < 0.2 for share in found[1:])


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two steps of each model, into a folder of their own."""
    steps = {"one digit": 2, "a phone book": 2}
    small = recall.RECIPE | {"steps": steps, "batch": 3, "test": dict.fromkeys(steps, 200)}
    monkeypatch.setattr(recall, "RECIPE", small)
    monkeypatch.setattr(recall, "RESULT", tmp_path / "recall.json")
    monkeypatch.setattr(recall, "LOG", tmp_path / "recall.log")
    monkeypatch.setattr(recall, "SEEDS", (0,))
    monkeypatch.setattr(recall, "MODELS", ("Elman", "self-attention"))
    return tmp_path / "recall.json"


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    threads = torch.get_num_threads()
    recall.main()
    first = json.loads(small.read_text())
    assert len(first["runs"]) == 5
    assert {len(run["recall"]) for run in first["runs"]} == {24, 96}
    kept, *lost = first["runs"]
    small.write_text(json.dumps(first | {"runs": [kept | {"parameters": -1}]}))
    recall.main()
    torch.set_num_threads(threads)
    again = json.loads(small.read_text())["runs"]
    assert again[0]["parameters"] == -1, "a finished run was made again"
    assert [r["recall"] for r in again[1:]] == [r["recall"] for r in lost], "another run"


def test_the_saved_curves_are_those_of_this_recipe():
    saved = curves.load("recall")
    assert saved["recipe"] == recall.RECIPE
    found = [(run["task"], run["model"], run["seed"]) for run in saved["runs"]]
    tasks = [task.name for task in TASKS]
    wanted = set(itertools.product(tasks, recall.MODELS, recall.SEEDS))
    wanted |= {("a phone book", "wide LSTM", seed) for seed in recall.SEEDS}
    assert set(found) == wanted and len(found) == len(wanted)
    for run in saved["runs"]:
        assert len(run["recall"]) == saved["recipe"]["test lengths"][run["task"]]
