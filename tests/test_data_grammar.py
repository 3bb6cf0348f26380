from collections import Counter, defaultdict
from math import isclose, sqrt

import pytest

from transformer_lit.data import grammar


def as_dict():
    return {sentence.words: (sentence, p) for sentence, p in grammar.language()}


def test_i_saw_a_saw_has_the_tags_tree_and_probability_worked_out_by_hand():
    sentence, p = as_dict()["i", "saw", "a", "saw"]
    assert sentence.tags == ("PRON", "VERB", "DET", "NOUN")
    tree = "(S (NP (PRON i)) (VP (VERB saw) (NP (DET a) (NOUN saw))))"
    assert grammar.bracketed(sentence.tree) == tree
    # S 6/10, i 3/8, VP 3/16, object 5/8, a 3/8, saw 1/8.
    assert isclose(p, 6 / 10 * 3 / 8 * 3 / 16 * 5 / 8 * 3 / 8 / 8)


def test_the_sentences_the_book_speaks_of_can_be_said():
    tags = {" ".join(words): " ".join(s.tags) for words, (s, _) in as_dict().items()}
    assert tags["i can can a can"] == "PRON AUX VERB DET NOUN"
    assert tags["they can fish"] == "PRON AUX VERB"
    assert tags["the duck can duck"] == "DET NOUN AUX VERB"
    assert tags["we fish"] == "PRON VERB"
    assert tags["they watch her light light"] == "PRON VERB DET ADJ NOUN"
    # The start of both is the same; the tag of "light" depends on the word three to its right.
    assert tags["the light can can fish"] == "DET ADJ NOUN AUX VERB"
    assert tags["the light can can a fish"] == "DET NOUN AUX VERB DET NOUN"


def test_probabilities_sum_to_one_and_no_words_have_two_readings():
    language = grammar.language()
    assert isclose(sum(p for _, p in language), 1)
    assert min(p for _, p in language) > 0
    # Each string of words stands once in the list: one tree, and so one sequence of tags.
    assert len({sentence.words for sentence, _ in language}) == len(language) > 50_000


def test_tags_are_those_stated_and_many_words_have_several():
    tags = defaultdict(set)
    for sentence, _ in grammar.language():
        assert len(sentence.words) == len(sentence.tags)
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            tags[word].add(tag)
    assert set().union(*tags.values()) == set(grammar.TAGS)
    assert len(tags) == 16
    assert sum(len(several) > 1 for several in tags.values()) == 10
    assert tags["can"] == {"AUX", "NOUN", "VERB"}


def test_the_per_word_ceiling_is_that_of_listing_every_sentence():
    counts = defaultdict(Counter)
    for sentence, p in grammar.language():
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += p
    best = sum(max(tags.values()) for tags in counts.values())
    everything = sum(sum(tags.values()) for tags in counts.values())
    assert isclose(grammar.per_word_ceiling(), best / everything, rel_tol=1e-9)
    assert isclose(grammar.per_word_ceiling(), grammar.window_ceiling(0), rel_tol=1e-9)
    assert 0.7 < grammar.per_word_ceiling() < 0.75


def test_the_best_per_word_tagger_reaches_the_ceiling_on_a_sample():
    counts = defaultdict(Counter)
    for sentence, p in grammar.language():
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += p
    tagger = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}

    sentences = grammar.sample(7_919, seed=7)
    hits = [sum(tagger[w] == t for w, t in zip(s.words, s.tags, strict=True)) for s in sentences]
    lengths = [len(s.words) for s in sentences]
    # A ratio of two means; its standard error over sentences by linearisation.
    accuracy = sum(hits) / sum(lengths)
    residues = [h - accuracy * n for h, n in zip(hits, lengths, strict=True)]
    error = sqrt(sum(r * r for r in residues)) / sum(lengths)
    assert error < 0.003
    assert abs(accuracy - grammar.per_word_ceiling()) < 4 * error


def test_a_wider_window_resolves_more_and_three_words_each_way_resolve_all():
    ceilings = [grammar.window_ceiling(width) for width in range(4)]
    assert ceilings[0] < ceilings[1] < ceilings[2] < ceilings[3]
    assert 0.99 < ceilings[1] < 0.995
    assert isclose(ceilings[3], 1)


def test_sampling_is_seeded_and_follows_the_probabilities():
    assert grammar.sample(101, seed=3) == grammar.sample(101, seed=3)
    assert grammar.sample(101, seed=3) != grammar.sample(101, seed=4)
    assert grammar.sample(0, seed=3) == []
    known = as_dict()
    n = 7_919
    drawn = Counter(sentence.words for sentence in grammar.sample(n, seed=11))
    assert all(words in known for words in drawn)
    for words in [("we", "saw", "her"), ("i", "fish"), ("the", "duck", "can", "fish")]:
        p = known[words][1]
        assert abs(drawn[words] / n - p) < 4 * sqrt(p * (1 - p) / n)


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="sentences must not be negative, got -1"):
        grammar.sample(-1, seed=0)
    with pytest.raises(ValueError, match="width must not be negative, got -2"):
        grammar.window_ceiling(-2)
