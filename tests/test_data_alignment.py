from math import log
from pathlib import Path

import numpy as np
import pytest

from transformer_lit.data import alignment, pronunciations
from transformer_lit.data.alignment import CHUNKS, LETTERS, NULL


def hand_aligned(name):
    lines = Path(__file__).with_name("data").joinpath(name).read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {word: tuple(chunks) for word, *chunks in rows}


def agreement(hand, table):
    """The shares of words and of letters that a table aligns as a person did."""
    pairs = [(word, alignment.spoken(chunks)) for word, chunks in hand.items()]
    found = list(zip(alignment.align(pairs, table), hand.values(), strict=True))
    letters = [a == b for one, other in found for a, b in zip(one, other, strict=True)]
    return np.mean([one == other for one, other in found]), np.mean(letters)


def test_two_words_give_the_table_computed_by_hand():
    # "ab" is said B by its a (weight 1) or by its b (weight 1/3); "b" by its b. From a uniform
    # table, then, the shares of "ab" are 3/4 and 1/4.
    pairs = [("ab", ("B",)), ("b", ("B",))]
    a, b = LETTERS.index("a"), LETTERS.index("b")
    silent, said = CHUNKS.index(NULL), CHUNKS.index("B")
    once = alignment.fit(pairs, iterations=1)
    assert np.allclose(once.table[a, [silent, said]], [1 / 4, 3 / 4])
    assert np.allclose(once.table[b, [silent, said]], [3 / 8, 5 / 8])
    assert np.isclose(once.log_likelihoods[0], log(4 / 3) - 3 * log(len(CHUNKS)))
    # Now 3/4 * 3/8 against 1/4 * 5/8 * 1/3: shares of 27/32 and 5/32.
    twice = alignment.fit(pairs, iterations=2)
    assert np.allclose(twice.table[a, [silent, said]], [5 / 32, 27 / 32])
    assert np.allclose(twice.table[b, [silent, said]], [27 / 64, 37 / 64])
    assert np.isclose(twice.log_likelihoods[1], log(9 / 32 + 5 / 96) + log(5 / 8))


def test_viterbi_finds_the_best_of_all_alignments_listed_one_by_one():
    generator = np.random.default_rng(5)
    table = generator.dirichlet(np.full(len(CHUNKS), 0.1), size=len(LETTERS))
    word, sounds = "quixo", ("K", "W", "IH", "K", "S", "OW")

    def listed(letters, sounds):
        if not letters:
            return [] if sounds else [()]
        return [
            ("+".join(sounds[:k]) or NULL, *rest)
            for k in range(min(2, len(sounds)) + 1)
            for rest in listed(letters[1:], sounds[k:])
        ]

    def score(chunks):
        total = 0.0
        for i, (letter, chunk) in enumerate(zip(word, chunks, strict=True)):
            size = 0 if chunk == NULL else 1 + chunk.count("+")
            p = max(table[LETTERS.index(letter), CHUNKS.index(chunk)], 1e-9)
            total += log(p) + size * i * log(1 / 3) + (size == 2) * log(1 / 50)
        return total

    everything = listed(word, sounds)
    assert len(everything) == 45
    best = max(everything, key=score)
    assert alignment.align([(word, sounds)], table) == [best]


def test_the_likelihood_never_falls_and_rows_stay_distributions():
    fit = alignment.fit(alignment._first_pronunciations("train")[::101], iterations=11)
    steps = np.diff(fit.log_likelihoods)
    assert len(steps) == 10 and (steps > 0).all()
    assert np.allclose(fit.table.sum(1), 1)


def test_fitting_and_aligning_twice_gives_the_same():
    pairs = alignment._first_pronunciations("train")[:997]
    one, two = alignment.fit(pairs, iterations=3), alignment.fit(pairs, iterations=3)
    assert (one.table == two.table).all() and one.log_likelihoods == two.log_likelihoods
    assert alignment.align(pairs, one.table) == alignment.align(pairs, two.table)


# Measured: 101 of 114 words, 542 of 568 letters; 38 of 45 words, 292 of 308 letters.
@pytest.mark.parametrize(
    ("name", "at_least", "words", "letters"),
    [("alignments.txt", 110, 0.86, 0.94), ("alignments_unseen.txt", 45, 0.80, 0.93)],
)
def test_agreement_with_words_aligned_by_hand(name, at_least, words, letters):
    hand = hand_aligned(name)
    assert len(hand) >= at_least
    dictionary = {entry.word: entry.pronunciations for entry in pronunciations.load()}
    for word, chunks in hand.items():
        assert len(chunks) == len(word) and alignment.spoken(chunks) in dictionary[word], word
    share_of_words, share_of_letters = agreement(hand, alignment._table())
    assert share_of_words >= words and share_of_letters >= letters
    # A table that knows nothing agrees much less, so it is the fit that is measured.
    ignorant = np.full((len(LETTERS), len(CHUNKS)), 1 / len(CHUNKS))
    assert agreement(hand, ignorant)[0] < words / 2


def test_without_the_preference_for_first_letters_agreement_is_lower(monkeypatch):
    pairs = alignment._first_pronunciations("train")[::23]
    hand = hand_aligned("alignments.txt")
    words, _ = agreement(hand, alignment.fit(pairs, iterations=7).table)
    monkeypatch.setattr(alignment, "LATE", 1.0)
    assert agreement(hand, alignment.fit(pairs, iterations=7).table)[0] < words - 0.05


def test_chunks_of_every_word_join_to_its_pronunciation():
    for part in pronunciations.PARTS:
        first = {word: said[0] for word, said in pronunciations.load(part)}
        found = alignment.aligned(part)
        assert len(found) / len(first) > 0.999
        for word, chunks in found:
            assert len(chunks) == len(word)
            assert alignment.spoken(chunks) == first[word]


def test_the_words_of_the_docstring_are_aligned_as_it_says():
    pairs = [("knight", ("N", "AY", "T")), ("box", ("B", "AA", "K", "S"))]
    knight, box = alignment.align(pairs, alignment._table())
    assert knight == ("_", "N", "AY", "_", "_", "T")
    assert box == ("B", "AA", "K+S")


def test_long_words_are_fitted_or_refused_and_always_aligned():
    longest = "pneumonoultramicroscopicsilicovolcanoconiosis"
    sounds = ("N", "UW", "M", "OW") * 9
    fit = alignment.fit([(longest, sounds)], iterations=2)
    assert np.isfinite(fit.log_likelihoods).all() and np.isfinite(fit.table).all()
    (chunks,) = alignment.align([(longest * 3, sounds * 3)], fit.table)
    assert alignment.spoken(chunks) == sounds * 3
    with pytest.raises(ValueError, match="words of 135 letters are too long"):
        alignment.fit([(longest * 3, sounds * 3)])


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("mr", ("M", "IH", "S", "T", "ER")), r"'mr' has 5 phonemes for 2 letters: at most 2"),
        (("Cat", ("K",)), "'Cat' has 'C': expected letters of abc"),
        (("cat", ("K", "AE1")), r"'cat' has the phoneme 'AE1': expected AA AE"),
        (("", ()), "at least one letter"),
    ],
)
def test_words_that_cannot_be_aligned_are_refused(pair, message):
    with pytest.raises(ValueError, match=message):
        alignment.align([pair], alignment._table())
    with pytest.raises(ValueError, match=message):
        alignment.fit([pair])


def test_fitting_to_nothing_or_for_no_iterations_is_refused():
    with pytest.raises(ValueError, match="no words"):
        alignment.fit([])
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        alignment.fit([("a", ("AH",))], iterations=0)
    with pytest.raises(ValueError, match=r"'all'.*train, validation, test"):
        alignment.aligned("all")
