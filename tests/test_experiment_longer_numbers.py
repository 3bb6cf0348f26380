"""The experiment on longer numbers: its scores, its data, and that it goes on where it stopped."""

import itertools
import json

import pytest
import torch

import longer_numbers
from transformer_lit.data import curves
from transformer_lit.data.number_words import in_words
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID

TARGET = torch.tensor([BEGIN_ID, 5, 4, STOP_ID])
PAIRS = [(torch.tensor([2, 3, 4]), TARGET), (torch.tensor([3, 3, 2]), TARGET)]


class Says(torch.nn.Module):
    """A model that writes 5, 4, stop for a source that begins with 2, and 5, 5, stop for others."""

    def __init__(self):
        super().__init__()
        self.somewhere = torch.nn.Parameter(torch.zeros(1))
        self.written = 0

    def answers(self, source):
        good, bad = torch.tensor([5, 4, STOP_ID]), torch.tensor([5, 5, STOP_ID])
        return torch.where(source[:, :1] == 2, good, bad)

    def forward(self, source, shown):
        return torch.nn.functional.one_hot(self.answers(source), 7).float()

    def start(self, source):
        self.written = 0
        return source

    def step(self, tokens, source):
        self.written += 1
        return self(source, None)[:, self.written - 1]

    def attention(self, source, target):
        """Look across for a source that begins with 2, straight on for others."""
        across, straight = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2])
        where = torch.where(source[:, :1] == 2, across, straight)
        return [torch.nn.functional.one_hot(where, 3).float()[:, None]]


def test_the_scores_by_hand():
    assert longer_numbers.exact(Says(), PAIRS) == 0.5
    assert longer_numbers.words_right(Says(), PAIRS) == pytest.approx(5 / 6)
    assert longer_numbers.crossing(Says(), PAIRS) == 0.5


def test_training_and_test_numbers_differ_and_only_tests_are_longer():
    _, _, train_on, tests = longer_numbers.data(per_length=30, tests=11)
    trained = {tuple(source.tolist()) for source, _ in train_on}
    assert max(map(len, trained)) == longer_numbers.RECIPE["longest in training"] == 8
    assert {*tests} | {2} == {*range(1, 10), 11}, "no number has ten pieces"
    assert list(tests) == sorted(tests)
    for pieces, part in tests.items():
        assert 1 <= len(part) <= 11
        for source, target in part:
            assert len(source) == pieces and tuple(source.tolist()) not in trained
            assert target[0] == BEGIN_ID and target[-1] == STOP_ID


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two runs of a narrow model on few numbers, into a folder of their own."""
    recipe = longer_numbers.RECIPE | {"d_model": 8, "d_ff": 8, "n_layers": 1, "warmup": 2}
    sets = longer_numbers.data(per_length=7, tests=3)
    few = [pair for pair in sets[3][3] if len(pair[1]) == 4]
    forty_two = german_and_english(sets, 42)
    sets[3][3] = few or [forty_two]
    methods = {"sinusoids": None, "Shaw, clip 4": lambda: longer_numbers.Shaw(d_head=2, clip=4)}
    monkeypatch.setattr(longer_numbers, "RECIPE", recipe)
    monkeypatch.setattr(longer_numbers, "METHODS", methods)
    monkeypatch.setattr(longer_numbers, "SEEDS", (0,))
    monkeypatch.setattr(longer_numbers, "RESULT", tmp_path / "longer_numbers.json")
    monkeypatch.setattr(longer_numbers, "LOG", tmp_path / "longer_numbers.log")
    monkeypatch.setattr(longer_numbers, "data", lambda: sets)
    return tmp_path / "longer_numbers.json"


def german_and_english(sets, number):
    german, english = sets[:2]
    answer = ["<begin>", *in_words(number, "english"), "<stop>"]
    return german.encode(in_words(number, "german")), english.encode(answer)


def test_it_makes_the_runs_that_are_missing_and_no_other(small, capsys):
    longer_numbers.main()
    first = json.loads(small.read_text())
    assert [run["method"] for run in first["runs"]] == ["sinusoids", "Shaw, clip 4"]
    assert all(len(run["exact"]) == len(first["pieces"]) > 5 for run in first["runs"])
    kept, lost = first["runs"]
    small.write_text(json.dumps(first | {"runs": [kept | {"crossing": -1}]}))
    longer_numbers.main()
    again = json.loads(small.read_text())["runs"]
    assert again[0]["crossing"] == -1, "a finished run was made again"
    assert again[1]["words right"] == lost["words right"], "the same seed gave another run"


def test_results_of_another_recipe_are_not_mixed_in(small, capsys):
    longer_numbers.main()
    text = small.read_text().replace('"warmup": 2', '"warmup": 3')
    small.write_text(text)
    with pytest.raises(SystemExit, match="another recipe"):
        longer_numbers.main()
    assert small.read_text() == text


def test_the_saved_curves_are_those_of_this_recipe():
    saved = curves.load("longer_numbers")
    assert saved["recipe"] == longer_numbers.RECIPE
    found = {(run["method"], run["seed"]) for run in saved["runs"]}
    wanted = itertools.product(longer_numbers.METHODS, longer_numbers.SEEDS)
    assert found == set(wanted) and len(saved["runs"]) == len(found)
    for run in saved["runs"]:
        for score in ("exact", "words right"):
            assert len(run[score]) == len(saved["pieces"]) == len(saved["numbers"])
            assert all(0 <= share <= 1 for share in run[score])
