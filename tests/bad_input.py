"""What tests/test_bad_input.py calls: one valid call for each public function of the package.

Sizes are different primes where they can be, so that a swapped axis does not fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save
from torch import Tensor, nn

from transformer_lit import (
    attention,
    block,
    convolution,
    copying,
    decoding,
    distributed,
    embedding,
    encoder,
    encoder_decoder,
    masking,
    multi_head,
    non_autoregressive,
    positions,
    pretrained,
    recurrence,
    relative_positions,
    scheduled_sampling,
    sequences,
    sparse_attention,
    training,
    vocabulary,
    window,
)
from transformer_lit.checkpoints import PRONOUNCER, load_pronouncer
from transformer_lit.data import alignment, grammar
from transformer_lit.sequences import Box


@dataclass(frozen=True)
class Made:
    """An argument that another function of the package has made, or a part that was handed in."""

    value: object


def x(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ids(*shape: int, low: int = 3, high: int = 7) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0))


def begun(*shape: int) -> Tensor:
    tokens = ids(*shape)
    tokens[:, 0] = 1
    return tokens


def generator() -> Made:
    return Made(torch.Generator().manual_seed(0))


SETTINGS = encoder_decoder.Settings(
    source_size=7, target_size=11, d_model=6, n_heads=3, n_layers=1, d_ff=5, dropout=0.1, max_len=13
)
SHARED = encoder_decoder.Settings(
    source_size=7, target_size=7, d_model=6, n_heads=3, n_layers=1, d_ff=5, dropout=0.1, max_len=13
)
BERT = pretrained.Settings(vocab_size=7, max_len=13, d_model=6, n_heads=3, n_layers=1, d_ff=5)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b"]
SIZES = {"d_model": 6, "n_heads": 3, "d_ff": 5, "dropout": 0.1}
HEADS = (2, 3, 5, 7)  # batch heads seq d_head


def model() -> encoder_decoder.EncoderDecoder:
    return encoder_decoder.EncoderDecoder(SETTINGS).eval()


def at_once() -> non_autoregressive.NonAutoregressive:
    return non_autoregressive.NonAutoregressive(SETTINGS, spare=1).eval()


def pointer() -> copying.PointerGenerator:
    return copying.PointerGenerator(SHARED).eval()


def read(one: nn.Module) -> dict[str, Made]:
    memory, memory_mask = one.encode(ids(2, 5))
    return {"memory": Made(memory), "memory_mask": Made(memory_mask)}


def memory() -> Made:
    return Made((x(2, 3, 5, 2), x(2, 3, 5, 2)))


def decoder_block() -> encoder_decoder.DecoderBlock:
    return encoder_decoder.DecoderBlock(**SIZES).eval()


def words() -> vocabulary.Vocabulary:
    return vocabulary.Vocabulary("abc")


def known_words() -> vocabulary.Vocabulary:
    return copying.word_vocabulary(["the", "cat"])


def multi(**more) -> multi_head.MultiHeadAttention:
    return multi_head.MultiHeadAttention(d_model=6, n_heads=3, **more)


def pairs() -> list[tuple[Tensor, Tensor]]:
    return [(ids(5), begun(1, 4)[0]), (ids(3), begun(1, 3)[0]), (ids(2), begun(1, 2)[0])]


RECIPE = training.Recipe(epochs=1, batch_size=2, rate=0.1, warmup=1, patience=1)

MASK = torch.ones(2, 5, 5, dtype=torch.bool).tril()
ALL_HEADS = torch.ones(2, 3, 5, 5, dtype=torch.bool).tril()
PADDING = torch.ones(2, 1, 1, 5, dtype=torch.bool)
TREE = ("S", ("NP", ("PRON", "i")), ("VP", ("VERB", "saw")))
BOXES = [Box(1.0, 2.0, 5.0, 7.0, "cat"), Box(0.0, 0.0, 3.0, 3.0, "dog")]
EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
LENGTHS = torch.tensor([5, 3])
LOADED = {}


def pronouncer() -> Made:
    if "pronouncer" not in LOADED:
        LOADED["pronouncer"] = load_pronouncer()
    return Made(LOADED["pronouncer"])


def job() -> Made:
    if "job" not in LOADED:
        LOADED["job"] = TemporaryDirectory()
        distributed.write_job(Path(LOADED["job"].name), SETTINGS, RECIPE, pairs())
    return Made(Path(LOADED["job"].name))


def qk(**more) -> dict[str, Tensor]:
    return {"q": x(*HEADS), "k": x(*HEADS)} | more


CALLS: dict[str, Callable[[], dict[str, object]]] = {
    # 01
    "vocabulary.Vocabulary": lambda: {"symbols": ["a", "b"], "specials": ("<pad>",)},
    "vocabulary.Vocabulary.__contains__": lambda: {"self": Made(words()), "symbol": "a"},
    "vocabulary.Vocabulary.id_of": lambda: {
        "self": Made(vocabulary.Vocabulary("abc", specials=("<pad>",))),
        "symbol": "a",
    },
    "vocabulary.Vocabulary.encode": lambda: {
        "self": Made(vocabulary.Vocabulary("abc", specials=("<pad>",))),
        "text": ["a", "b"],
    },
    "vocabulary.Vocabulary.decode": lambda: {"self": Made(words()), "tokens": ids(5, high=5)},
    "vocabulary.one_hot": lambda: {"tokens": ids(2, 5), "vocab_size": 7},
    "vocabulary.pad": lambda: {"sequences": [x(5, 2), x(3, 2)], "value": 0.5},
    "vocabulary.real_positions": lambda: {"lengths": LENGTHS, "seq": 5},
    # 02
    "embedding.Embedding": lambda: {"vocab_size": 7, "d_model": 5, "scaled": True},
    "embedding.Embedding.forward": lambda: {
        "self": embedding.Embedding(vocab_size=7, d_model=3),
        "tokens": ids(2, 5),
    },
    "embedding.TiedOutput": lambda: {"embedding": embedding.Embedding(vocab_size=7, d_model=3)},
    "embedding.TiedOutput.forward": lambda: {
        "self": embedding.TiedOutput(embedding.Embedding(vocab_size=7, d_model=3)),
        "x": x(2, 5, 3),
    },
    # 03
    "window.windows": lambda: {"tokens": ids(2, 5), "width": 3},
    "window.WindowClassifier": lambda: {
        "vocab_size": 7,
        "n_classes": 5,
        "width": 3,
        "d_model": 2,
        "d_hidden": 11,
    },
    "window.WindowClassifier.forward": lambda: {
        "self": window.WindowClassifier(vocab_size=7, n_classes=5, width=3, d_model=2, d_hidden=11),
        "tokens": ids(2, 5),
    },
    # 04
    "attention.dot_product_scores": lambda: {"q": x(2, 3, 7), "k": x(2, 5, 7), "scale": 0.5},
    "attention.AdditiveScores": lambda: {"d_query": 2, "d_key": 3, "d_hidden": 5},
    "attention.AdditiveScores.forward": lambda: {
        "self": attention.AdditiveScores(d_query=7, d_key=11, d_hidden=13),
        "q": x(2, 3, 7),
        "k": x(2, 5, 11),
    },
    "attention.softmax_weights": lambda: {"scores": x(2, 5, 5), "mask": MASK},
    "attention.explicit_attention": lambda: {
        "q": x(2, 5, 7),
        "k": x(2, 5, 7),
        "v": x(2, 5, 3),
        "mask": MASK,
        "bias": x(2, 5, 5),
        "causal": True,
        "weigh": attention.softmax_weights,
    },
    "attention.fused_attention": lambda: {
        "q": x(2, 5, 7),
        "k": x(2, 5, 7),
        "v": x(2, 5, 3),
        "mask": MASK,
        "bias": x(2, 5, 5),
        "causal": True,
    },
    "attention.SelfAttention": lambda: {"d_model": 7, "d_head": 3},
    "attention.SelfAttention.forward": lambda: {
        "self": attention.SelfAttention(d_model=7, d_head=3),
        "x": x(2, 5, 7),
        "mask": MASK,
        "need_weights": False,
    },
    "attention.check_vectors": lambda: {"x": x(2, 5, 7), "layer": nn.Linear(7, 3)},
    "attention.check_mask": lambda: {"mask": MASK, "shape": (2, 5, 5)},
    # 05
    "multi_head.MultiHeadAttention": lambda: {"d_model": 6, "n_heads": 3, "position": None},
    "multi_head.MultiHeadAttention.keys_values": lambda: {"self": multi(), "x": x(2, 5, 6)},
    "multi_head.MultiHeadAttention.forward": lambda: {
        "self": multi(),
        "x": x(2, 5, 6),
        "mask": ALL_HEADS,
        "causal": False,
        "need_weights": False,
        "keys_values": (x(2, 3, 5, 2), x(2, 3, 5, 2)),
    },
    "multi_head.MultiHeadAttention.attend": lambda: {
        "self": multi(),
        "q": x(2, 3, 5, 2),
        "k": x(2, 3, 5, 2),
        "v": x(2, 3, 5, 2),
        "mask": ALL_HEADS,
        "causal": True,
        "need_weights": True,
    },
    "multi_head.SeparateHeads": lambda: {"d_model": 7, "n_heads": 3, "d_head": 5},
    "multi_head.SeparateHeads.forward": lambda: {
        "self": multi_head.SeparateHeads(d_model=7, n_heads=3, d_head=2),
        "x": x(2, 5, 7),
        "mask": ALL_HEADS,
    },
    "multi_head.SeparateHeads.split": lambda: {"whole": multi()},
    # 06
    "positions.sinusoids": lambda: {"max_len": 7, "d_model": 6},
    "positions.OneHotPositions": lambda: {"max_len": 7},
    "positions.OneHotPositions.forward": lambda: {
        "self": positions.OneHotPositions(max_len=5),
        "x": x(2, 5, 7),
    },
    "positions.SinusoidalPositions": lambda: {"d_model": 6, "max_len": 7},
    "positions.SinusoidalPositions.forward": lambda: {
        "self": positions.SinusoidalPositions(d_model=6, max_len=5),
        "x": x(2, 5, 6),
    },
    "positions.LearnedPositions": lambda: {"d_model": 3, "max_len": 7},
    "positions.LearnedPositions.forward": lambda: {
        "self": positions.LearnedPositions(d_model=3, max_len=5),
        "x": x(2, 5, 3),
    },
    # 07
    "relative_positions.offsets": lambda: {"n_query": 3, "n_key": 5},
    "relative_positions.RelativePosition.rotate": lambda: {
        "self": relative_positions.RelativePosition(),
        **qk(),
    },
    "relative_positions.RelativePosition.bias": lambda: {
        "self": relative_positions.RelativePosition(),
        **qk(),
    },
    "relative_positions.RelativePosition.extra": lambda: {
        "self": relative_positions.RelativePosition(),
        "weights": x(2, 3, 5, 5),
    },
    "relative_positions.Shaw": lambda: {"d_head": 7, "clip": 2, "values": True},
    "relative_positions.Shaw.rows": lambda: {
        "self": relative_positions.Shaw(d_head=7, clip=2),
        "n_query": 3,
        "n_key": 5,
    },
    "relative_positions.Shaw.bias": lambda: {
        "self": relative_positions.Shaw(d_head=7, clip=2),
        **qk(),
    },
    "relative_positions.Shaw.extra": lambda: {
        "self": relative_positions.Shaw(d_head=7, clip=2),
        "weights": x(2, 3, 5, 5),
    },
    "relative_positions.TransformerXL": lambda: {"n_heads": 3, "d_head": 2},
    "relative_positions.TransformerXL.bias": lambda: {
        "self": relative_positions.TransformerXL(n_heads=3, d_head=2),
        "q": x(2, 3, 5, 2),
        "k": x(2, 3, 5, 2),
    },
    "relative_positions.shift": lambda: {"x": x(2, 3, 7)},
    "relative_positions.T5": lambda: {
        "n_heads": 3,
        "causal": True,
        "n_buckets": 8,
        "max_distance": 13,
    },
    "relative_positions.T5.bias": lambda: {
        "self": relative_positions.T5(n_heads=3, causal=True),
        **qk(),
    },
    "relative_positions.buckets": lambda: {
        "offset": torch.arange(-5, 5),
        "n_buckets": 8,
        "max_distance": 13,
        "causal": False,
    },
    "relative_positions.RoPE": lambda: {"d_head": 6, "layout": "interleaved"},
    "relative_positions.RoPE.rotate": lambda: {
        "self": relative_positions.RoPE(d_head=6, layout="half-split"),
        "q": x(2, 3, 5, 6),
        "k": x(2, 3, 5, 6),
    },
    "relative_positions.RoPE.turn": lambda: {
        "self": relative_positions.RoPE(d_head=6, layout="half-split"),
        "x": x(2, 3, 5, 6),
        "place": torch.arange(5),
    },
    "relative_positions.to_half_split": lambda: {"d_head": 6},
    "relative_positions.ALiBi": lambda: {"n_heads": 3},
    "relative_positions.ALiBi.bias": lambda: {
        "self": relative_positions.ALiBi(n_heads=3),
        **qk(),
    },
    "relative_positions.slopes": lambda: {"n_heads": 3},
    # 08
    "masking.padding_mask": lambda: {"lengths": LENGTHS, "seq": 5},
    "masking.causal_mask": lambda: {"seq": 5},
    "masking.local_mask": lambda: {"seq": 5, "window": 2},
    "masking.forbidden": lambda: {"mask": MASK},
    "masking.to_additive": lambda: {"mask": MASK, "dtype": torch.float64},
    "masking.from_additive": lambda: {"additive": masking.to_additive(MASK)},
    # 09
    "block.LayerNorm": lambda: {"d_model": 7, "eps": 1e-5},
    "block.LayerNorm.forward": lambda: {"self": block.LayerNorm(d_model=7), "x": x(2, 5, 7)},
    "block.FeedForward": lambda: {"d_model": 7, "d_ff": 3, "dropout": 0.1},
    "block.FeedForward.forward": lambda: {
        "self": block.FeedForward(d_model=7, d_ff=3),
        "x": x(2, 5, 7),
    },
    "block.Block": lambda: {
        "attention": multi(),
        "feed_forward": block.FeedForward(d_model=6, d_ff=3),
        "d_model": 6,
        "dropout": 0.1,
        "norm_first": True,
    },
    "block.Block.forward": lambda: {
        "self": block.Block(
            attention=multi(), feed_forward=block.FeedForward(d_model=6, d_ff=3), d_model=6
        ),
        "x": x(2, 5, 6),
        "mask": ALL_HEADS,
        "need_weights": False,
    },
    # 10
    "encoder.Encoder": lambda: {
        "n_layers": 2,
        **SIZES,
        "norm_first": True,
        "position": lambda: None,
    },
    "encoder.Encoder.forward": lambda: {
        "self": encoder.Encoder(n_layers=1, **SIZES),
        "x": x(2, 5, 6),
        "mask": ALL_HEADS,
        "need_weights": False,
    },
    "encoder.mean_pool": lambda: {"x": x(2, 5, 7), "lengths": LENGTHS},
    "encoder.SummaryToken": lambda: {"d_model": 7},
    "encoder.SummaryToken.forward": lambda: {
        "self": encoder.SummaryToken(d_model=7),
        "x": x(2, 5, 7),
        "lengths": LENGTHS,
    },
    # 11
    "encoder_decoder.target_vocabulary": lambda: {"symbols": ["a", "b"]},
    "encoder_decoder.Cache": lambda: {"max_len": 5},
    "encoder_decoder.Cache.extend": lambda: {
        "self": Made(encoder_decoder.Cache(5)),
        "new": (x(2, 3, 5, 7), x(2, 3, 5, 7)),
    },
    "encoder_decoder.Cache.select": lambda: {
        "self": Made(encoder_decoder.Cache(5)),
        "rows": torch.tensor([0, 1]),
    },
    "encoder_decoder.DecoderBlock": lambda: {**SIZES, "norm_first": True, "position": None},
    "encoder_decoder.DecoderBlock.forward": lambda: {
        "self": decoder_block(),
        "x": x(2, 5, 6),
        "memory": memory(),
        "mask": ALL_HEADS[:, :1],
        "memory_mask": Made(PADDING),
        "need_weights": False,
    },
    "encoder_decoder.DecoderBlock.add_and_norm": lambda: {
        "self": decoder_block(),
        "x": x(2, 5, 6),
        "look_at_self": torch.relu,
        "look_at_source": torch.relu,
        "feed_forward": torch.relu,
    },
    "encoder_decoder.OneByOne": lambda: {"block": decoder_block(), "n_rows": 2},
    "encoder_decoder.OneByOne.__call__": lambda: {
        "self": Made(encoder_decoder.OneByOne(decoder_block(), 2)),
        "x": x(2, 6),
        "memory": memory(),
        "memory_mask": Made(PADDING),
        "cache": Made(encoder_decoder.Cache(5)),
    },
    "encoder_decoder.State": lambda: {
        "memory": Made([memory().value]),
        "memory_mask": Made(PADDING),
        "max_len": 5,
    },
    "encoder_decoder.State.select": lambda: {
        "self": Made(model().start(ids(2, 5))),
        "rows": torch.tensor([0, 1]),
    },
    "encoder_decoder.EncoderDecoder": lambda: {"settings": SETTINGS, "position": None},
    "encoder_decoder.EncoderDecoder.forward": lambda: {
        "self": model(),
        "source": ids(2, 5),
        "target": begun(2, 5),
    },
    "encoder_decoder.EncoderDecoder.encode": lambda: {"self": model(), "source": ids(2, 5)},
    "encoder_decoder.EncoderDecoder.decode": lambda: {
        "self": model(),
        "target": begun(2, 5),
        **read(model()),
    },
    "encoder_decoder.EncoderDecoder.attention": lambda: {
        "self": model(),
        "source": ids(2, 5),
        "target": begun(2, 5),
    },
    "encoder_decoder.EncoderDecoder.start": lambda: {
        "self": model(),
        "source": ids(2, 5),
        "max_len": 7,
    },
    "encoder_decoder.EncoderDecoder.step": lambda: {
        "self": model(),
        "tokens": torch.tensor([1, 1]),
        "state": Made(model().start(ids(2, 5))),
    },
    # 12
    "training.teacher_forcing": lambda: {"target": begun(2, 5)},
    "training.sequence_loss": lambda: {
        "logits": x(2, 5, 7),
        "labels": ids(2, 5),
        "label_smoothing": 0.1,
    },
    "training.inverse_sqrt": lambda: {"step": 3, "d_model": 7, "warmup": 5},
    "training.up_and_down": lambda: {"step": 3, "peak": 0.1, "warmup": 5, "steps": 11},
    "training.bucketed": lambda: {
        "lengths": [3, 5, 2],
        "batch_size": 2,
        "generator": generator(),
    },
    "training.Recipe": lambda: {
        "epochs": 1,
        "batch_size": 2,
        "rate": 0.1,
        "warmup": 1,
        "label_smoothing": 0.1,
        "weight_decay": 0.1,
        "clip": 0.5,
        "patience": 1,
        "bfloat16": False,
        "seed": 3,
    },
    "training.train": lambda: {
        "model": model(),
        "pairs": pairs(),
        "recipe": Made(RECIPE),
        "validation": pairs(),
        "checkpoint": None,
        "after_epoch": lambda model, record: None,
        "rank": 0,
        "world": 1,
        "progress": False,
    },
    "training.validation_loss": lambda: {
        "model": model(),
        "pairs": pairs(),
        "recipe": Made(RECIPE),
    },
    "training.batch": lambda: {"pairs": pairs(), "model": model()},
    "training.weights": lambda: {"model": model()},
    "training.average": lambda: {"states": [{"a": x(5)}, {"a": x(5)}]},
    # 13
    "decoding.Hypothesis.score": lambda: {
        "self": Made(decoding.Hypothesis(ids(3), -x(4).abs(), True)),
        "alpha": 1.0,
    },
    "decoding.greedy": lambda: {"model": model(), "source": ids(2, 5), "max_len": 3},
    "decoding.sample": lambda: {
        "model": model(),
        "source": ids(2, 5),
        "max_len": 3,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "generator": generator(),
    },
    "decoding.truncate": lambda: {
        "logits": x(2, 7),
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
    },
    "decoding.beam": lambda: {
        "model": model(),
        "source": ids(2, 5),
        "n_beams": 2,
        "max_len": 3,
        "alpha": 1.0,
    },
    "decoding.error_rates": lambda: {
        "answers": [["a", "b"], ["c"]],
        "references": [[["a", "b"]], [["d"]]],
    },
    "decoding.evaluating": lambda: {"model": model()},
    # 14
    "scheduled_sampling.linear": lambda: {"step": 3, "k": 0.5, "c": 0.1, "least": 0.1},
    "scheduled_sampling.exponential": lambda: {"step": 3, "k": 0.5},
    "scheduled_sampling.inverse_sigmoid": lambda: {"step": 3, "k": 2.0},
    "scheduled_sampling.likeliest": lambda: {"logits": x(2, 5, 7)},
    "scheduled_sampling.keeps_truth": lambda: {
        "shown": begun(2, 5),
        "eps": 0.5,
        "generator": generator(),
    },
    "scheduled_sampling.step_by_step": lambda: {
        "model": model(),
        "shown": begun(2, 5),
        **read(model()),
        "eps": 0.5,
        "generator": generator(),
    },
    "scheduled_sampling.two_pass": lambda: {
        "model": model(),
        "shown": begun(2, 5),
        **read(model()),
        "eps": 0.5,
        "generator": generator(),
    },
    "scheduled_sampling.ScheduledSampling": lambda: {
        "model": model(),
        "schedule": lambda step: 0.5,
        "make_inputs": scheduled_sampling.two_pass,
    },
    "scheduled_sampling.ScheduledSampling.forward": lambda: {
        "self": scheduled_sampling.ScheduledSampling(model(), schedule=lambda step: 0.5),
        "source": ids(2, 5),
        "shown": begun(2, 5),
    },
    # 15
    "non_autoregressive.NonAutoregressive": lambda: {"settings": SETTINGS, "spare": 1},
    "non_autoregressive.NonAutoregressive.forward": lambda: {
        "self": at_once(),
        "source": ids(2, 5),
        "shown": begun(2, 5),
    },
    "non_autoregressive.NonAutoregressive.fill": lambda: {
        "self": at_once(),
        "inputs": ids(2, 5),
        **read(at_once()),
        "visible": LENGTHS,
    },
    "non_autoregressive.NonAutoregressive.may_see": lambda: {
        "self": at_once(),
        "visible": LENGTHS,
        "seq": 5,
    },
    "non_autoregressive.NonAutoregressive.length_logits": lambda: {
        "self": at_once(),
        **read(at_once()),
    },
    "non_autoregressive.NonAutoregressive.room": lambda: {
        "self": at_once(),
        "memory_mask": Made(PADDING),
    },
    "non_autoregressive.with_length": lambda: {"target": torch.tensor([1, 3, 4, 2])},
    "non_autoregressive.cut_at_stop": lambda: {"model": at_once(), "source": ids(2, 5)},
    "non_autoregressive.mask_predict": lambda: {
        "model": at_once(),
        "source": ids(2, 5),
        "n_passes": 2,
        "lengths": LENGTHS,
    },
    "non_autoregressive.lowest": lambda: {"certainty": x(2, 5), "count": LENGTHS},
    "non_autoregressive.is_mixture": lambda: {
        "answer": ["a", "d"],
        "right": [["a", "b"], ["c", "d"]],
    },
    # 16
    "copying.word_vocabulary": lambda: {"words": ["the", "cat"]},
    "copying.ExtendedVocabulary": lambda: {
        "vocabulary": Made(known_words()),
        "source": ["the", "dog"],
    },
    "copying.ExtendedVocabulary.encode": lambda: {
        "self": Made(copying.ExtendedVocabulary(known_words(), ["the", "dog"])),
        "words": ["dog", "cat"],
    },
    "copying.ExtendedVocabulary.decode": lambda: {
        "self": Made(copying.ExtendedVocabulary(known_words(), ["the", "dog"])),
        "tokens": ids(5),
    },
    "copying.count_words": lambda: {"source": ids(2, 5), "vocab_size": 7},
    "copying.mixture": lambda: {
        "logits": x(2, 3, 7),
        "gate": x(2, 3),
        "scores": x(2, 3, 5),
        "source": ids(2, 5),
    },
    "copying.CopyState": lambda: {
        "state": Made(model().start(ids(2, 5))),
        "source": Made(ids(2, 5)),
    },
    "copying.CopyState.select": lambda: {
        "self": Made(pointer().start(ids(2, 5))),
        "rows": torch.tensor([0, 1]),
    },
    "copying.PointerGenerator": lambda: {"settings": SHARED},
    "copying.PointerGenerator.forward": lambda: {
        "self": pointer(),
        "source": ids(2, 5),
        "target": begun(2, 5),
    },
    "copying.PointerGenerator.parts": lambda: {
        "self": pointer(),
        "source": ids(2, 5),
        "target": begun(2, 5),
    },
    "copying.PointerGenerator.encode": lambda: {"self": pointer(), "source": ids(2, 5)},
    "copying.PointerGenerator.start": lambda: {
        "self": pointer(),
        "source": ids(2, 5),
        "max_len": 7,
    },
    "copying.PointerGenerator.step": lambda: {
        "self": pointer(),
        "tokens": torch.tensor([1, 1]),
        "state": Made(pointer().start(ids(2, 5))),
    },
    "copying.PointerGenerator.known": lambda: {"self": pointer(), "tokens": ids(2, 5)},
    # 17
    "sequences.write_tree": lambda: {"tree": TREE},
    "sequences.read_tree": lambda: {
        "symbols": sequences.write_tree(TREE),
        "words": ["i", "saw"],
    },
    "sequences.write_labels": lambda: {"labels": ["b", "a"], "order": ["a", "b", "c"]},
    "sequences.read_labels": lambda: {"symbols": ["b", "a"], "order": ["a", "b", "c"]},
    "sequences.write_boxes": lambda: {"boxes": BOXES, "size": 7.0, "n_bins": 8},
    "sequences.read_boxes": lambda: {
        "symbols": ["@1", "@2", "@5", "@7", "cat"],
        "size": 7.0,
        "n_bins": 8,
    },
    "sequences.iou": lambda: {"a": BOXES[0], "b": BOXES[1]},
    "sequences.precision_recall": lambda: {
        "found": [BOXES],
        "truth": [BOXES],
        "threshold": 0.5,
    },
    "sequences.picture_tokens": lambda: {
        "pictures": x(2, 4, 6).abs().clamp(max=1),
        "patch": 2,
        "levels": 3,
    },
    # 18
    "convolution.grid_offsets": lambda: {"height": 2, "width": 3},
    "convolution.Quadratic": lambda: {
        "centers": x(3, 2),
        "sharpness": 2.0,
        "height": 2,
        "width": 5,
    },
    "convolution.Quadratic.bias": lambda: {
        "self": convolution.Quadratic(x(3, 2), sharpness=2.0, height=1, width=5),
        **qk(),
    },
    "convolution.ConvolutionByHeads": lambda: {
        "conv": nn.Conv2d(2, 3, 3, padding=1),
        "height": 5,
        "width": 7,
        "sharpness": 50.0,
    },
    "convolution.ConvolutionByHeads.forward": lambda: {
        "self": convolution.ConvolutionByHeads(nn.Conv2d(2, 3, 3, padding=1), height=5, width=7),
        "images": x(2, 2, 5, 7),
    },
    "convolution.patches": lambda: {"images": x(2, 3, 4, 6), "size": 2},
    "convolution.VisionTransformer": lambda: {
        "image": (4, 6),
        "size": 2,
        "channels": 3,
        "n_classes": 5,
        "d_model": 6,
        "n_layers": 1,
        "n_heads": 3,
        "d_ff": 5,
    },
    "convolution.VisionTransformer.forward": lambda: {
        "self": convolution.VisionTransformer(
            image=(4, 6), size=2, channels=3, n_classes=5, n_layers=1, d_model=6, n_heads=3, d_ff=5
        ),
        "images": x(2, 3, 4, 6),
    },
    # 19
    "recurrence.Elman": lambda: {"d_model": 7, "d_state": 3},
    "recurrence.Elman.forward": lambda: {
        "self": recurrence.Elman(d_model=7, d_state=3),
        "x": x(2, 5, 7),
        "state": x(2, 3),
    },
    "recurrence.LSTM": lambda: {"d_model": 7, "d_state": 3, "forget_bias": 1.0},
    "recurrence.LSTM.forward": lambda: {
        "self": recurrence.LSTM(d_model=7, d_state=3),
        "x": x(2, 5, 7),
        "state": (x(2, 3), x(2, 3)),
    },
    # 20
    "sparse_attention.edges_of": lambda: {"mask": MASK[0]},
    "sparse_attention.edge_softmax": lambda: {
        "scores": x(4, 3),
        "queries": EDGES[0],
        "n_nodes": 5,
    },
    "sparse_attention.GraphAttention": lambda: {"d_in": 7, "d_head": 2, "n_heads": 3},
    "sparse_attention.GraphAttention.forward": lambda: {
        "self": sparse_attention.GraphAttention(d_in=7, d_head=2, n_heads=3),
        "x": x(5, 7),
        "edges": EDGES,
    },
    "sparse_attention.windowed_attention": lambda: {
        "q": x(*HEADS),
        "k": x(*HEADS),
        "v": x(*HEADS),
        "window": 2,
        "mask": PADDING,
    },
    "sparse_attention.WindowedAttention": lambda: {"d_model": 6, "n_heads": 3, "window": 2},
    "sparse_attention.WindowedAttention.forward": lambda: {
        "self": sparse_attention.WindowedAttention(d_model=6, n_heads=3, window=2),
        "x": x(2, 5, 6),
        "mask": PADDING,
        "need_weights": False,
    },
    # 21
    "pretrained.WordPiece": lambda: {"pieces": PIECES},
    "pretrained.WordPiece.cut": lambda: {
        "self": Made(pretrained.WordPiece(PIECES)),
        "word": "ab",
    },
    "pretrained.WordPiece.pieces": lambda: {
        "self": Made(pretrained.WordPiece(PIECES)),
        "text": "ab b",
    },
    "pretrained.words": lambda: {"text": "ab b"},
    "pretrained.GeluFeedForward": lambda: {"d_model": 7, "d_ff": 3, "dropout": 0.1},
    "pretrained.GeluFeedForward.forward": lambda: {
        "self": pretrained.GeluFeedForward(d_model=7, d_ff=3),
        "x": x(2, 5, 7),
    },
    "pretrained.BertEncoder": lambda: {"settings": BERT},
    "pretrained.BertEncoder.forward": lambda: {
        "self": pretrained.BertEncoder(BERT),
        "tokens": ids(2, 5),
        "lengths": LENGTHS,
    },
    "pretrained.names": lambda: {"n_layers": 2},
    "pretrained.load_weights": lambda: {
        "model": pretrained.BertEncoder(BERT),
        "tensors": {
            pretrained.names(1)[name]: value
            for name, value in pretrained.BertEncoder(BERT).state_dict().items()
        },
    },
    "pretrained.embed": lambda: {
        "model": pretrained.BertEncoder(BERT),
        "tokenizer": Made(pretrained.WordPiece(PIECES)),
        "texts": ["ab b", "a"],
        "at_once": 2,
    },
    # 22
    "distributed.units": lambda: {"model": model()},
    "distributed.ring_bytes": lambda: {"messages": [("all-reduce", 60)], "world": 5},
    "distributed.predicted": lambda: {
        "model": model(),
        "source_bytes": 60,
        "target_bytes": 60,
        "world": 5,
    },
    "distributed.Machine": lambda: {"operations": 7.0, "bandwidth": 5.0, "latency": 0.1},
    "distributed.Machine.seconds": lambda: {
        "self": Made(distributed.Machine(7.0, 5.0, 0.1)),
        "messages": [("all-reduce", 60)],
        "world": 5,
    },
    "distributed.step_operations": lambda: {"n_parameters": 7.0, "n_places": 5.0},
    "distributed.write_job": lambda: {
        "folder": job(),
        "settings": Made(SETTINGS),
        "recipe": Made(RECIPE),
        "pairs": pairs(),
    },
    "distributed.read_job": lambda: {"folder": job()},
    "distributed.metadata": lambda: {"path": Made(job().value / "job.safetensors")},
    "distributed.command": lambda: {
        "task": "train",
        "folder": job(),
        "n_processes": 2,
        "n_nodes": 3,
        "endpoint": "localhost:0",
        "restarts": 1,
    },
    "distributed.steps": lambda: {"way": "alone", "folder": job(), "n_steps": 2},
    "distributed.share_of_loss": lambda: {
        "model": model(),
        "source": ids(2, 5),
        "target": begun(2, 5),
        "rows": Made(slice(1, None, 2)),
    },
    "distributed.joined": lambda: {"value": x(3)},
    "distributed.piece": lambda: {"value": x(3)},
    # data
    "data.alignment.fit": lambda: {"pairs": [("at", ["AE", "T"])], "iterations": 2},
    "data.alignment.align": lambda: {
        "pairs": [("at", ["AE", "T"])],
        "table": Made(alignment.fit([("at", ["AE", "T"])], iterations=1).table),
    },
    "data.alignment.spoken": lambda: {"chunks": ("AE", "T", "_")},
    "data.alignment.aligned": lambda: {"part": "test"},
    "data.curves.load": lambda: {"name": "warmup"},
    "data.digits.load": lambda: {"part": "test"},
    "data.grammar.sample": lambda: {"n": 3, "seed": 5},
    "data.grammar.bracketed": lambda: {"tree": Made(grammar.sample(1, 0)[0].tree)},
    "data.grammar.window_ceiling": lambda: {"width": 1},
    "data.news.words": lambda: {"document": "two words"},
    "data.number_words.numbers": lambda: {"part": "test", "low": 1, "high": 50},
    "data.number_words.in_words": lambda: {"number": 42, "language": "german"},
    "data.pronunciations.part_of": lambda: {"word": "cat"},
    "data.pronunciations.load": lambda: {"part": "test", "stress": False},
    "data.reports.draw": lambda: {
        "n": 3,
        "among": {"A": 1, "B": 1, "C": 1, "D": 1},
        "seed": 5,
    },
    "data.reviews.load": lambda: {"part": "a"},
    "data.reviews.words": lambda: {"snippet": "two words"},
    "data.vowels.load": lambda: {"part": "test"},
    # the rest of the annex
    "checkpoints.Pronouncer.check": lambda: {"self": pronouncer(), "word": "cat"},
    "checkpoints.Pronouncer.encode": lambda: {"self": pronouncer(), "words": ["cat", "dog"]},
    "checkpoints.Pronouncer.pronounce": lambda: {
        "self": pronouncer(),
        "words": ["cat", "dog"],
        "n_beams": 2,
        "at_once": 2,
    },
    "checkpoints.load_pronouncer": lambda: {"path": Made(PRONOUNCER)},
    "checkpoints.minilm.check_digest": lambda: {
        "name": "a file",
        "content": Made(b""),
        "expected": sha256(b"").hexdigest(),
    },
    "checkpoints.minilm.parse": lambda: {
        "contents": {
            "model.safetensors": save({"a": x(3)}),
            "tokenizer.json": b'{"model": {"vocab": {"a": 0}}}',
        }
    },
    "explorables.alibi.ALiBiExplorable": lambda: {"n_heads": 8, "head": 3},
    "explorables.at_once.judge": lambda: {"answer": ["a", "b"], "right": [["a", "b"]]},
    "explorables.at_once.AtOnceExplorable": lambda: {
        "pronouncer": pronouncer(),
        "word": None,
        "n_beams": 2,
        "step": 1,
    },
    "explorables.attention.AttentionExplorable": lambda: {
        "words": ["a", "b", "c"],
        "vectors": [[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]],
        "query": 1,
        "temperature": 0.5,
    },
    "explorables.decoding.search": lambda: {
        "model": model(),
        "source": ids(1, 5),
        "n_beams": 2,
        "max_len": 3,
    },
    "explorables.decoding.DecodingExplorable": lambda: {
        "pronouncer": pronouncer(),
        "words": ["cat", "dog"],
        "word": "cat",
        "n_beams": 2,
        "step": 1,
    },
    "explorables.heads.HeadsExplorable": lambda: {"word": "aalsmeer", "layer": 1, "head": 1},
    "explorables.masking.MaskingExplorable": lambda: {
        "words": ["a", "b"],
        "scores": [[1.0, 2.0], [2.0, 1.0]],
        "mask": [[True, False], [True, True]],
        "length": 1,
        "window": 1,
    },
    "explorables.positions.PositionsExplorable": lambda: {
        "place": 3,
        "other": 5,
        "d_model": 16,
    },
    "explorables.rope.RoPEExplorable": lambda: {
        "query": [1.0, 2.0, 1.0, 0.5],
        "key": [1.0, 2.0, 1.0, 0.5],
        "query_place": 3,
        "key_place": 5,
    },
}

# How a message may call an argument, other than by its own name.
IDS = ("ids", "targets", "target", "sources", "sequences", "places")
NAMED = {
    "x": ("queries", "heads"),
    "q": ("queries", "heads"),
    "k": ("keys",),
    "v": ("values",),
    "seq": ("lengths",),
    "logits": ("vocab_size",),
    "n_query": ("queries",),
    "n_key": ("keys",),
    "weights": ("queries",),
    "keys_values": ("keys", "values", "axes"),
    "tokens": IDS,
    "source": IDS,
    "target": IDS,
    "shown": IDS,
    "inputs": (*IDS, "seq"),
    "pairs": (*IDS, "lengths", "words", "word", "batch"),
    "validation": IDS,
    "visible": ("lengths",),
    "count": ("lengths",),
    "place": ("places",),
    "source_size": ("vocab_size", "sizes"),
    "target_size": ("vocab_size", "sizes"),
    "symbols": ("symbol", "label", "box", "tree"),
    "text": ("sequence", "symbol"),
    "words": ("symbol", "sequence", "word", "text", "rows"),
    "lengths": ("sequences",),
    "states": ("names",),
    "order": ("labels", "expected"),
    "truth": ("true",),
    "pictures": ("pixels", "grey"),
    "centers": ("center", "heads"),
    "edges": ("nodes", "edge"),
    "queries": ("nodes",),
    "pieces": ("piece",),
    "tensors": ("weights",),
    "name": ("curves",),
    "among": ("names",),
    "n_heads": ("head",),
    "query": ("numbers",),
    "key": ("numbers",),
    "vectors": ("numbers",),
    "settings": ("vocab_size",),
}

# Public functions without a row, and why.
UNTRIED = {
    "distributed.*_parallel": "one of several processes that have met calls it",
    "distributed.sharded": "one of several processes that have met calls it",
    "distributed.send": "one of several processes that have met calls it",
    "distributed.clock": "one of several processes that have met calls it",
    "distributed.compare": "one of several processes that have met calls it",
    "distributed.measure": "one of several processes that have met calls it",
    "distributed.train_job": "one of several processes that have met calls it",
    "distributed.main": "one of several processes that have met calls it",
    "distributed.launch": "runs a line of command, which knows its arguments",
    "distributed.start": "runs a line of command, which knows its arguments",
    "cli.*": "their arguments come from a shell; tests/test_cli.py holds what each answers",
    "figures.*": "they draw with matplotlib what chapters give them, and compute nothing",
    "checkpoints.minilm.from_hub": "asks the network; tests/test_minilm.py gives it bad files",
}

# Cases that are not refused by name, and what happens instead.
RESULTS = {
    # what the argument is
    "*dropout zero": "no dropout",
    "*label_smoothing zero": "no smoothing",
    "*window zero": "a place sees itself alone",
    "*alpha zero": "no division by the length",
    "scheduled_sampling.* eps zero": "no symbol stays as it was",
    "vocabulary.Vocabulary * first *": "any text is a symbol",
    "vocabulary.Vocabulary specials empty": "no special symbols",
    "vocabulary.Vocabulary.__contains__ *": "what is unknown is not in it: False",
    "encoder_decoder.target_vocabulary symbols first *": "any text is a symbol",
    "vocabulary.pad value *": "any number may fill up, NaN and infinity too",
    "window.windows tokens negative": "ids are moved; the embedding knows them",
    "window.windows tokens huge": "ids are moved; the embedding knows them",
    "attention.dot_product_scores scale *": "a factor may be any number; chapter 04 tries some",
    "attention.check_vectors x nan": "width and dtype count, and no numbers",
    "relative_positions.RelativePosition.*": "the hooks do nothing; a method overrides them",
    "relative_positions.*.bias ? nan": "only the shape counts, or only queries or keys do",
    "relative_positions.shift x *": "moves what it is given, of any dtype; the ends fall away",
    "relative_positions.*buckets max_distance fraction": "the far buckets end at any number",
    "relative_positions.T5 max_distance fraction": "the far buckets end at any number",
    "relative_positions.buckets offset negative": "a distance of -1 is one",
    "relative_positions.buckets offset huge": "beyond max_distance all are in the last bucket",
    "relative_positions.RoPE.turn place huge": "a place of a million is one",
    "convolution.Quadratic.bias ? nan": "only the shape counts",
    "training.sequence_loss logits axis -1 single": "the labels that it has not are named",
    "training.* first first rank below": "a number has no length, as Python says",
    "scheduled_sampling.likeliest logits nan": "argmax takes NaN as the highest",
    "scheduled_sampling.keeps_truth shown negative": "ids are compared; the embedding knows them",
    "scheduled_sampling.keeps_truth shown huge": "ids are compared; the embedding knows them",
    "scheduled_sampling.step_by_step shown negative": "the last symbol is not read",
    "scheduled_sampling.step_by_step shown huge": "the last symbol is not read",
    "copying.PointerGenerator.step tokens huge": "read as unknown, and that is not BEGIN_ID",
    "encoder.mean_pool x nan": "what stands in the padding is not read",
    "training.inverse_sqrt * fraction": "the formula is one of real numbers",
    "training.up_and_down * fraction": "the formula is one of real numbers",
    "training.teacher_forcing target negative": "ids are moved; the embedding knows them",
    "training.teacher_forcing target huge": "ids are moved; the embedding knows them",
    "training.batch pairs first first negative": "ids are moved; the embedding knows them",
    "training.batch pairs first first huge": "ids are moved; the embedding knows them",
    "training.bucketed lengths first *": "lengths are sorted by, nothing else",
    "training.Recipe clip infinite": "no gradient is clipped",
    "training.Recipe weight_decay zero": "no decay",
    "training.Recipe seed negative": "any whole number is a seed",
    "training.Recipe seed zero": "any whole number is a seed",
    "training.train rank zero": "the first process",
    "decoding.Hypothesis.score alpha *": "the formula is one of real numbers",
    "decoding.error_rates * first*": "any text is a symbol, and no symbols an answer",
    "scheduled_sampling.* step zero": "the first step",
    "scheduled_sampling.* step fraction": "the formula is one of real numbers",
    "scheduled_sampling.linear c infinite": "the least at once",
    "scheduled_sampling.linear least zero": "down to no truth at all",
    "non_autoregressive.NonAutoregressive spare zero": "as much room as the source has",
    "non_autoregressive.NonAutoregressive.forward shown negative": "hidden symbols are not read",
    "non_autoregressive.NonAutoregressive.forward shown huge": "hidden symbols are not read",
    "non_autoregressive.lowest certainty nan": "NaN is sorted as the highest",
    "non_autoregressive.lowest count negative": "none is marked",
    "non_autoregressive.lowest count huge": "all are marked",
    "non_autoregressive.is_mixture *": "any text is a symbol, and none a mixture of nothing",
    "copying.word_vocabulary words first *": "any text is a word",
    "copying.ExtendedVocabulary * first *": "any text is a word",
    "copying.ExtendedVocabulary.encode words first *": "any text is a word",
    "copying.PointerGenerator.known tokens *": "ids are replaced; the embedding knows them",
    "sequences.write_tree tree first *": "any text is a label",
    "sequences.read_tree symbols first *": "any text is a tag; that there is no word is said",
    "sequences.read_tree words first *": "any text is a word",
    "sequences.write_labels labels empty": "no label, no symbol",
    "sequences.read_labels symbols empty": "no symbol, no label",
    "sequences.write_boxes boxes empty": "no box, no symbol",
    "sequences.read_boxes symbols empty": "no symbol, no box",
    "sequences.precision_recall found first empty": "nothing is found: precision 0",
    "sequences.precision_recall threshold zero": "any box of the label will do",
    "recurrence.LSTM forget_bias *": "any number may be a bias",
    "sparse_attention.GraphAttention.forward x nan": "what no edge leads to is not read",
    "sparse_attention.GraphAttention.forward edges axis -1 longer": "the pair is named",
    "pretrained.WordPiece.* *": "any text is cut",
    "pretrained.words *": "any text is split",
    "pretrained.embed texts first *": "any text has a vector",
    "pretrained.load_weights tensors empty": "the missing ones are named",
    "data.alignment.fit pairs first first nonsense": "any letters are a word",
    "data.alignment.align pairs empty": "no word, no alignment",
    "data.alignment.align pairs first first nonsense": "any letters are a word",
    "data.alignment.spoken *": "chunks are joined, whatever they are",
    "data.grammar.sample n zero": "no sentence",
    "data.* seed *": "Python makes generators of any number",
    "data.grammar.window_ceiling width zero": "the word alone is seen",
    "data.*.words *": "any text is split",
    "data.pronunciations.part_of *": "any text is in a part",
    "data.reports.draw n zero": "no report",
    "checkpoints.Pronouncer.* nonsense": "any letters are a word",
    "checkpoints.minilm.check_digest name *": "it is for the message alone",
    "checkpoints.minilm.check_digest expected *": "the message has both digests",
    "checkpoints.minilm.parse contents empty": "the missing file is named",
    "explorables.*zero": "0 is one of the values",
    "explorables.* first * negative": "numbers may be negative",
    "explorables.* first negative": "numbers may be negative",
    "explorables.* words first *": "any text is a word",
    "explorables.at_once.judge *": "any text is a symbol",
    "distributed.*ring_bytes messages empty": "nothing is sent",
    "distributed.Machine.seconds messages empty": "nothing takes no time",
    "distributed.Machine latency zero": "a message costs its bytes alone",
    "distributed.command restarts zero": "none",
    "distributed.command endpoint *": "torchrun looks for the machine",
    "distributed.share_of_loss target negative": "the last symbol is a label, and called so",
    "distributed.share_of_loss target huge": "the last symbol is a label, and called so",
    "distributed.write_job pairs first first rank below": "a single number is no sequence",
    "distributed.write_job pairs first first negative": "ids are moved; the embedding knows them",
    "distributed.write_job pairs first first huge": "ids are moved; the embedding knows them",
    # what Python says of a pair that is none
    "distributed.* first empty": "two values are unpacked",
    "multi_head.MultiHeadAttention.forward keys_values empty": "two values are unpacked",
    "training.* first empty": "two values are unpacked",
    "data.alignment.* pairs first empty": "two values are unpacked",
    "recurrence.LSTM.forward state empty": "two values are unpacked",
    # the hot path of decoding one symbol
    "encoder_decoder.Cache.extend *": "called for each symbol: what it gets, OneByOne has made",
    "copying.CopyState.select *": "called for each symbol: what it gets, beam has made",
    "encoder_decoder.*.select *": "called for each symbol: what it gets, beam has made",
    "encoder_decoder.OneByOne.__call__ *": "called for each symbol: step has checked its arguments",
    "encoder_decoder.OneByOne n_rows *": "says how weights lie in memory: 1 or not 1",
}
