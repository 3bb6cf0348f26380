import sys

import pytest
from num2words import num2words

from transformer_lit.data.number_words import LANGUAGES, LIMIT, in_words, numbers

# fmt: off
KNOWN = {
    7: ("seven", "sieben", "sept"),
    21: ("twenty one", "ein und zwanzig", "vingt et un"),
    42: ("forty two", "zwei und vierzig", "quarante deux"),
    80: ("eighty", "achtzig", "quatre vingts"),
    97: ("ninety seven", "sieben und neunzig", "quatre vingt dix sept"),
    100: ("one hundred", "ein hundert", "cent"),
    113: ("one hundred and thirteen", "ein hundert dreizehn", "cent treize"),
    1042: ("one thousand and forty two", "ein tausend zwei und vierzig", "mille quarante deux"),
    342_117: (
        "three hundred and forty two thousand one hundred and seventeen",
        "drei hundert zwei und vierzig tausend ein hundert siebzehn",
        "trois cent quarante deux mille cent dix sept",
    ),
}
# fmt: on


@pytest.mark.parametrize("number", KNOWN)
def test_known_numbers_have_their_words(number):
    found = tuple(" ".join(in_words(number, language)) for language in LANGUAGES)
    assert found == KNOWN[number]


def test_the_german_pieces_are_the_whole_word():
    for number in [*range(1, 1100), *range(1099, LIMIT, 7919)]:
        assert "".join(in_words(number, "german")) == num2words(number, lang="de")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_numbers_share_their_words_and_few_pieces_make_them_all(language):
    found = {tuple(in_words(number, language)) for number in range(1, 2000)}
    assert len(found) == 1999
    pieces = {piece for words in found for piece in words}
    assert len(pieces) < 40
    assert {
        piece for number in (10_300, LIMIT - 1) for piece in in_words(number, language)
    } <= pieces


def test_multiples_of_seven_test_and_the_others_train():
    test, train = numbers("test", 1, 100), numbers("train", 1, 100)
    assert sorted(test + train) == list(range(1, 100)) and not {*test} & {*train}
    assert test == list(range(7, 100, 7)) and 42 in test
    assert numbers("train", 7, 8) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_piece_is_among_those_to_learn_from(language):
    learned = {piece for n in numbers("train", 1, 2000) for piece in in_words(n, language)}
    tested = {piece for n in numbers("test", 1, 2000) for piece in in_words(n, language)}
    assert tested <= learned


def test_a_part_a_language_or_a_number_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'validation'.*train, test"):
        numbers("validation", 1, 7)
    for low, high in ((0, 5), (5, 5), (1, LIMIT + 1)):
        with pytest.raises(ValueError, match=rf"must hold, got {low} and {high}"):
            numbers("train", low, high)
    with pytest.raises(ValueError, match=r"'dutch'.*english, german, french"):
        in_words(7, "dutch")
    for number in (0, -3, LIMIT):
        with pytest.raises(ValueError, match=rf"in 1 .. 999999, got {number}"):
            in_words(number, "german")


def test_a_missing_package_is_answered_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(ImportError, match=r'num2words: pip install "transformer-lit\[data\]"'):
        in_words(7, "german")
