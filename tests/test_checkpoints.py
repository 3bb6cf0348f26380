"""The checkpoints: what is shipped scores as it says; what is damaged is refused, and why."""

from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from safetensors.torch import load, save

import train_pronouncer
from tests.pronouncers import LETTERS, PHONEMES, TINY, describe, write_pronouncer
from transformer_lit.checkpoints import PRONOUNCER, load_pronouncer
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import load as load_words
from transformer_lit.decoding import beam, greedy
from transformer_lit.encoder_decoder import Settings
from transformer_lit.training import weights

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def path(tmp_path):
    return write_pronouncer(tmp_path / "x.safetensors")


# ---- loading


def test_the_weights_come_back_in_single_precision_ready_to_write(path):
    pronouncer = load_pronouncer(path)
    stored = load(path.read_bytes())
    found = weights(pronouncer.model)
    assert found.keys() == stored.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value.half(), stored[name])
    assert not pronouncer.model.training
    assert pronouncer.model.settings == Settings(**TINY)
    assert pronouncer.model.output.embedding is pronouncer.model.target_embedding


def test_capitals_count_as_small_letters(path):
    pronouncer = load_pronouncer(path)
    found = pronouncer.encode(["Ab'", "c"])
    assert found.tolist() == [
        [LETTERS.id_of(letter) for letter in "ab'"],
        [LETTERS.id_of("c"), 0, 0],
    ]


@pytest.mark.parametrize("n_beams", [1, 3])
def test_words_are_answered_in_their_order_however_many_are_read_at_once(path, n_beams):
    pronouncer = load_pronouncer(path)
    words = ["abcdefg", "b", "dca", "a'c", "eeeee"]
    found = pronouncer.pronounce(words, n_beams=n_beams, at_once=2 * n_beams)
    assert len(found) == len(words)
    for word, hypothesis in zip(words, found, strict=True):
        source = pronouncer.encode([word])
        if n_beams == 1:
            (wanted,) = greedy(pronouncer.model, source, max_len=11)
        else:
            wanted = beam(pronouncer.model, source, n_beams=n_beams, max_len=11)[0][0]
        assert torch.equal(hypothesis.tokens, wanted.tokens)
        torch.testing.assert_close(hypothesis.log_probs, wanted.log_probs, atol=1e-5, rtol=0)


# ---- refused


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_missing_file_is_named_with_what_to_do(path, suffix):
    gone = path.with_suffix(suffix)
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing: .*train_pronouncer\.py") as caught:
        load_pronouncer(path)
    assert str(caught.value).startswith(str(gone))


@pytest.mark.parametrize("change", ["one bit", "truncated", "empty", "longer"])
def test_weights_that_were_tampered_with_are_refused(path, change):
    content = path.read_bytes()
    flipped = bytes([*content[:-1], content[-1] ^ 1])
    changed = {
        "one bit": flipped, "truncated": content[:-100], "empty": b"", "longer": content + b"x"
    }  # fmt: skip
    path.write_bytes(changed[change])
    message = r"is not the file that x\.json describes, or it is damaged: SHA-256 [0-9a-f]{12}"
    with pytest.raises(ValueError, match=message):
        load_pronouncer(path)


@pytest.mark.parametrize("content", [b"", b"no tensors", bytes(64)])
def test_what_is_no_safetensors_file_is_refused_even_with_the_right_digest(path, content):
    path.write_bytes(content)
    describe(path)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged: "):
        load_pronouncer(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"d_ff": 29},
            r"another architecture than x\.json describes: 12 .* .*\.feed_forward\.",
        ),
        ({"n_layers": 3}, "another architecture"),
        ({"source_size": 29}, "reads and writes 29 and 42 symbols, there are 28 letters and 42"),
        ({"target_size": 41}, "reads and writes 28 and 41 symbols, there are 28 letters and 42"),
    ],
)
def test_weights_of_another_architecture_are_refused(path, changes, message):
    describe(path, settings=TINY | changes)
    with pytest.raises(ValueError, match=message):
        load_pronouncer(path)


def test_missing_and_unknown_tensors_are_refused(path):
    tensors = load(path.read_bytes())
    for change in ({"extra": torch.zeros(3)}, {next(iter(tensors)): None}):
        changed = {name: value for name, value in (tensors | change).items() if value is not None}
        path.write_bytes(save(changed))
        describe(path)
        with pytest.raises(ValueError, match=r"1 tensors are missing, too many .* the first"):
            load_pronouncer(path)


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", '{"sha256": "0"}', '{"sha256": "0", "settings": {"depth": 3}}'],
)
def test_a_description_that_describes_nothing_is_refused(path, text):
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json does not describe a pronouncer: "):
        load_pronouncer(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", ""], "an empty word has no pronunciation"),
        (["naïveté"], "'naïveté': unknown letter 'ï', 'é'; the pronouncer knows a to z and the"),
        (["<pad>"], "unknown letter '<', '>'"),
        (["a" * 12], "has 12 letters, the model reads 11"),
        ([], "there are no words to read"),
    ],
)
def test_words_it_cannot_read_are_refused(path, words, message):
    with pytest.raises(ValueError, match=message):
        load_pronouncer(path).pronounce(words)


@pytest.mark.parametrize("sizes", [{"n_beams": 0}, {"at_once": 0}])
def test_sizes_below_one_are_refused(path, sizes):
    with pytest.raises(ValueError, match="n_beams and at_once must be at least 1 and whole"):
        load_pronouncer(path).pronounce(["a"], **sizes)


# ---- the one that is shipped


@pytest.fixture(scope="module")
def shipped():
    return load_pronouncer()


def last_epochs(recipe):
    last = range(recipe.epochs - train_pronouncer.AVERAGED + 1, recipe.epochs + 1)
    return [f"epoch-{epoch:02}" for epoch in last]


def test_it_is_small_and_says_how_it_was_made(shipped):
    assert PRONOUNCER.stat().st_size <= 10_000_000
    about = shipped.about
    assert about["settings"] == asdict(train_pronouncer.SETTINGS)
    recipe = asdict(train_pronouncer.RECIPE)
    assert about["recipe"].items() >= recipe.items() and "seed" in recipe
    assert about["recipe"]["averaged"] == last_epochs(train_pronouncer.RECIPE)
    assert about["rounds before"] == [
        asdict(recipe) | {"dropout": settings.dropout, "averaged": last_epochs(recipe)}
        for settings, recipe in train_pronouncer.ROUNDS[:-1]
    ]
    assert about["recipe"]["script"] == train_pronouncer.SCRIPT
    assert "cmudict" in about["trained on"] and 0 < about["hours"] < 5
    assert about["versions"].keys() == {"python", "torch"}
    assert all(Version(version) for version in about["versions"].values())
    assert about["sha256"] == sha256(PRONOUNCER.read_bytes()).hexdigest()
    assert len(shipped.letters) == len(LETTERS) and len(shipped.phonemes) == len(PHONEMES)


def test_it_is_better_than_phonetisaurus_on_the_same_words_and_the_readme_says_so(shipped):
    other, readme = curves.load("phonetisaurus"), README.read_text("utf-8")
    assert other["words"] == len(load_words("test"))
    for found in shipped.about["scores"].values():
        assert found["word error rate"] < other["word error rate"]
        assert found["phoneme error rate"] < other["phoneme error rate"]
    for way, found in {**shipped.about["scores"], "Phonetisaurus": other}.items():
        assert found["words"] == other["words"]
        words, phonemes = found["word error rate"], found["phoneme error rate"]
        assert f"| {way} | {100 * words:.1f} % | {100 * phonemes:.1f} % |" in readme
    assert shipped.about["scores"].keys() == {"greedy", "beam of 5"}


def test_it_scores_on_a_sample_what_it_says_for_all_words(shipped):
    """Of 800 words drawn, about 200 are wrong; four standard deviations are 6 % of all words."""
    entries = load_words("test")
    order = torch.randperm(len(entries), generator=torch.Generator().manual_seed(0))
    words, phonemes = train_pronouncer.scores(shipped, [entries[i] for i in order[:800]])
    scored = shipped.about["scores"]["greedy"]
    assert words == pytest.approx(scored["word error rate"], abs=0.06)
    assert phonemes == pytest.approx(scored["phoneme error rate"], abs=0.02)
