"""The encoder that reads a trained BERT: its parts, its names, its pieces of words."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from transformer_lit.block import FeedForward, LayerNorm
from transformer_lit.data import news
from transformer_lit.pretrained import (
    UNUSED,
    BertEncoder,
    GeluFeedForward,
    Settings,
    WordPiece,
    embed,
    load_weights,
    names,
    words,
)
from transformer_lit.vocabulary import pad

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##able", "##a", "##ff", "able", "a", "b", "##b",
    "the", "dog", "##s", ".", "'", "ab",
]  # fmt: skip
# Sizes are different primes, d_model a multiple of the heads; and as many pieces as above.
SMALL = Settings(vocab_size=len(PIECES), max_len=13, d_model=15, n_heads=3, n_layers=2, d_ff=23)
TEXTS = ["The dogs.", "unable", "a b ab the dog 's"]


@pytest.fixture(scope="module")
def theirs():
    """A small BERT of Hugging Face's with weights of visible size."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=SMALL.vocab_size,
        hidden_size=SMALL.d_model,
        num_hidden_layers=SMALL.n_layers,
        num_attention_heads=SMALL.n_heads,
        intermediate_size=SMALL.d_ff,
        max_position_embeddings=SMALL.max_len,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return model


@pytest.fixture
def ours(theirs):
    model = BertEncoder(SMALL).eval()
    load_weights(model, theirs.state_dict())
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(PIECES)


def batch(tokenizer, texts=TEXTS):
    return pad([tokenizer.vocabulary.encode(tokenizer.pieces(text)) for text in texts])


@torch.no_grad()
def reference(theirs, tokens, lengths):
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    x = theirs(tokens, attention_mask=real.long()).last_hidden_state
    mean = (x * real[..., None]).sum(1) / lengths[:, None]
    return x, F.normalize(mean, dim=-1)


# ---- hand-computed values


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("unaffable", ["un", "##a", "##ff", "##able"]),
        ("ab", ["ab"]),  # the longest, not a and ##b
        ("abb", ["ab", "##b"]),
        ("dogs", ["dog", "##s"]),
        ("unx", ["[UNK]"]),  # all of the word, not its rest
        ("x", ["[UNK]"]),
        ("a" * 100, ["a"] + ["##a"] * 99),
        ("a" * 101, ["[UNK]"]),
    ],
)
def test_words_are_cut_by_hand(tokenizer, word, pieces):
    assert tokenizer.cut(word) == pieces


def test_a_text_stands_between_its_marks(tokenizer):
    assert tokenizer.pieces("The dogs.") == ["[CLS]", "the", "dog", "##s", ".", "[SEP]"]
    assert tokenizer.pieces(" ") == ["[CLS]", "[SEP]"]
    ids = tokenizer.vocabulary.encode(tokenizer.pieces("unable")).tolist()
    assert ids == [PIECES.index(piece) for piece in ("[CLS]", "un", "##able", "[SEP]")]


def test_words_are_lower_case_without_accents_and_marks_stand_alone():
    assert words("Naïve CAFÉ, don't!") == ["naive", "cafe", ",", "don", "'", "t", "!"]
    assert words("a\tb\u00a0c\u200bd\x00e\ufffd") == ["a", "b", "cde"]
    assert words("1+1=2 “x” 你好") == ["1", "+", "1", "=", "2", "“", "x", "”", "你", "好"]


def test_gelu_is_a_number_times_the_probability_that_noise_is_below_it():
    layer = GeluFeedForward(d_model=1, d_ff=1)
    for linear in (layer.widen, layer.narrow):
        torch.nn.init.ones_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    for x in (-2.0, -0.5, 0.0, 1.0, 3.0):
        wanted = x * (1 + math.erf(x / 2**0.5)) / 2
        assert layer(torch.tensor([x])).item() == pytest.approx(wanted, abs=1e-6)


# ---- properties


def test_padding_changes_nothing(ours, tokenizer):
    tokens, lengths = batch(tokenizer)
    together = ours(tokens, lengths)
    for row, length in enumerate(lengths):
        alone = ours(tokens[row : row + 1, :length], lengths[row : row + 1])
        assert_close(together[row : row + 1, :length], alone)


def test_vectors_of_texts_have_length_one_and_stand_in_the_order_of_the_texts(ours, tokenizer):
    found = embed(ours, tokenizer, TEXTS, at_once=2)
    assert_close(found.norm(dim=-1), torch.ones(len(TEXTS)))
    for row, text in enumerate(TEXTS):
        assert_close(found[row : row + 1], embed(ours, tokenizer, [text]))
    assert not found.requires_grad


def test_the_order_of_words_matters(ours, tokenizer):
    one, other = embed(ours, tokenizer, ["the dog a", "a dog the"])
    assert not torch.allclose(one, other, atol=1e-3)


def test_the_table_names_each_parameter_once(ours):
    table = names(SMALL.n_layers)
    assert table.keys() == dict(ours.named_parameters()).keys()
    assert len(set(table.values())) == len(table)
    assert not UNUSED & set(table.values())


# ---- agreement


def test_vectors_are_those_of_hugging_face(ours, theirs, tokenizer):
    tokens, lengths = batch(tokenizer)
    vectors, sentences = reference(theirs, tokens, lengths)
    found = ours(tokens, lengths)
    for row, length in enumerate(lengths):
        assert_close(found[row, :length], vectors[row, :length], atol=1e-5, rtol=1e-4)
    assert_close(embed(ours, tokenizer, TEXTS), sentences, atol=1e-5, rtol=1e-4)


def library(pieces):
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def test_words_and_pieces_are_those_of_the_tokenizers_library(tokenizer):
    odd = [
        "Ünïcode naïve — “quotes” 你好world",
        "İstanbul ΣΑΣ ß ﬁ x\u200by \x0b\x0c\x85 a\u2028b\x1cc",
        "$5+3<=4^`|~ e=mc² ½ ‰ §",
        "क्या हाल है 한국어 ラーメン が 🙂 hi\ufffd x\x00y ...",
    ]
    reference = library(PIECES)
    splitter, cleaner = reference.pre_tokenizer, reference.normalizer
    for text in [*odd, *news.load()[::10]]:
        wanted = splitter.pre_tokenize_str(cleaner.normalize_str(text))
        assert words(text) == [word for word, _ in wanted]
        assert tokenizer.pieces(text)[1:-1] == reference.encode(text).tokens


# ---- gradients


def test_gradients_reach_every_parameter_that_was_used(ours, tokenizer):
    ours(*batch(tokenizer)).square().sum().backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # Adding one number to all keys changes no weight of attention: the softmax cancels it.
        assert name.endswith("k_proj.bias") or parameter.grad.abs().sum() > 0, name


# ---- bad input


def test_a_missing_an_extra_and_a_misshapen_tensor_are_named_and_nothing_is_copied(theirs):
    fine = theirs.state_dict()
    query = "encoder.layer.1.attention.self.query.weight"
    model = BertEncoder(SMALL)
    before = copy.deepcopy(model.state_dict())
    for change, message in (
        ({query: None}, f"{query} is missing"),
        (
            {"encoder.layer.2.output.dense.bias": torch.zeros(15)},
            "layer.2.output.dense.bias is not",
        ),
        ({query: torch.zeros(15, 17)}, r"query.weight has shape \(15, 17\) instead of \(15, 15\)"),
    ):
        tensors = {name: value for name, value in (fine | change).items() if value is not None}
        with pytest.raises(ValueError, match=message):
            load_weights(model, tensors)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="; and 32 more"):
        load_weights(model, {})


def test_what_the_mean_does_not_need_may_be_missing(theirs):
    tensors = {name: value for name, value in theirs.state_dict().items() if name not in UNUSED}
    load_weights(BertEncoder(SMALL), tensors)


def test_texts_that_cannot_be_read_are_refused(ours, tokenizer):
    with pytest.raises(ValueError, match="there must be texts and at_once >= 1, got 0 and 16"):
        embed(ours, tokenizer, [])
    with pytest.raises(ValueError, match="got 1 and 0"):
        embed(ours, tokenizer, ["a"], at_once=0)
    with pytest.raises(ValueError, match=r"'b b b.*has 14 pieces, the limit is 13"):
        embed(ours, tokenizer, ["a", "b " * 12])
    with pytest.raises(ValueError, match=r"ids must lie in 0 .. 17, got ids from 0 to 18"):
        ours(torch.tensor([[0, 18]]), torch.tensor([2]))


def test_a_vocabulary_without_the_marks_is_refused():
    with pytest.raises(ValueError, match=r"missing: \['\[CLS\]'\]"):
        WordPiece([piece for piece in PIECES if piece != "[CLS]"])
    with pytest.raises(ValueError, match=r"the first piece must be \[PAD\]"):
        WordPiece(PIECES[1:])


# ---- broken on purpose


@pytest.mark.parametrize("broken", ["ReLU", "last norm", "eps", "pre-norm", "segment", "swapped"])
def test_a_part_that_differs_is_caught(ours, theirs, tokenizer, broken):
    if broken == "last norm":
        ours.encoder.norm = LayerNorm(d_model=SMALL.d_model)
    if broken == "segment":
        torch.nn.init.zeros_(ours.segments.weight)
    for block in ours.encoder.blocks:
        if broken == "ReLU":
            block.feed_forward.__class__ = FeedForward
        if broken == "eps":
            block.attention_norm.eps = block.feed_forward_norm.eps = 0.1
        if broken == "pre-norm":
            block.norm_first = True
        if broken == "swapped":
            a = block.attention
            a.q_proj, a.v_proj = a.v_proj, a.q_proj
    wanted = reference(theirs, *batch(tokenizer))[1]
    # Agreement above is to 1e-5.
    assert (embed(ours, tokenizer, TEXTS) - wanted).abs().max() > 1e-3
