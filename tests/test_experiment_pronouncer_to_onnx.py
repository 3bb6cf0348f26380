"""The pronouncer as ONNX: the graphs compute what the model computes, and lose no digit."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from jaxtyping import config
from onnx.reference import ReferenceEvaluator

import pronouncer_to_onnx as script
from tests.pronouncers import LETTERS, PHONEMES, TINY, write_pronouncer
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.encoder_decoder import EncoderDecoder, Settings
from transformer_lit.relative_positions import ALiBi

SINGLE, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
WORDS = ["a", "it's", "quincunx"]  # the example that is traced has five letters
BEGINNINGS = [[1], [1, 5, 9, 13, 17, 21, 3]]  # and three tokens


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of random weights."""
    return load_pronouncer(write_pronouncer(tmp_path_factory.mktemp("tiny") / "x.safetensors"))


@pytest.fixture(scope="module")
def graphs(tiny):
    """Its graphs; the checks of shapes that tests switch on would be traced with them."""
    config.update("jaxtyping_disable", True)
    try:
        return script.graphs(tiny.model)
    finally:
        config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def run(graphs):
    """Run both graphs on one word and one beginning: memory, log-probabilities, weights."""
    encoder, decoder = (ReferenceEvaluator(graphs[name]) for name in ("encoder", "decoder"))

    def both(source, target):
        memory = dict(zip(("keys", "values"), encoder.run(None, {"source": source}), strict=True))
        return memory, *decoder.run(None, {"target": np.array([target]), **memory})

    return both


def graph_of(**initializers):
    """A graph that hands on its initializers."""
    named = [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()]
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in initializers]
    outputs = [
        onnx.helper.make_tensor_value_info(f"{name}_out", SINGLE, value.shape)
        for name, value in initializers.items()
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], outputs, named))


def test_only_what_fits_into_half_precision_is_halved():
    fits = np.array([0.5, -3, 65504, 2.0**-24], dtype=np.float32)
    rounds, overflows = np.array([0.1], dtype=np.float32), np.array([70000], dtype=np.float32)
    halved = script.halve(graph_of(fits=fits, rounds=rounds, overflows=overflows))
    kinds = {one.name: one.data_type for one in halved.graph.initializer}
    assert kinds == {"fits.half": HALF, "rounds": SINGLE, "overflows": SINGLE}
    found = ReferenceEvaluator(halved).run(None, {})
    for one, expected in zip(found, (fits, rounds, overflows), strict=True):
        assert one.dtype == np.float32 and (one == expected).all()


@pytest.mark.parametrize("target", BEGINNINGS, ids=len)
@pytest.mark.parametrize("word", WORDS)
def test_the_graphs_agree_with_the_model(tiny, run, word, target):
    source, tokens = tiny.encode([word]), torch.tensor([target])
    memory, log_probs, weights = run(source.numpy(), target)
    with torch.no_grad():
        pairs, _ = tiny.model.encode(source)
        expected = tiny.model(source, tokens)[0, -1].log_softmax(-1)
        looked = torch.cat(tiny.model.attention(source, tokens))
    for name, kept in zip(("keys", "values"), zip(*pairs, strict=True), strict=True):
        torch.testing.assert_close(torch.from_numpy(memory[name]), torch.stack(kept))
    torch.testing.assert_close(torch.from_numpy(log_probs), expected)
    torch.testing.assert_close(torch.from_numpy(weights), looked)
    assert weights.shape == (TINY["n_layers"], TINY["n_heads"], len(target), len(word))


def test_the_future_does_not_change_where_earlier_places_looked(tiny, run):
    source = tiny.encode(["nation"]).numpy()
    *_, before = run(source, [1, 5, 9])
    *_, after = run(source, [1, 5, 9, 13])
    np.testing.assert_allclose(after[:, :, :3], before, atol=1e-6)


def test_nearly_all_weights_are_stored_in_half_precision(graphs):
    for graph in graphs.values():
        sizes = {SINGLE: 0, HALF: 0}
        for one in graph.graph.initializer:
            if one.data_type in sizes:
                sizes[one.data_type] += int(np.prod(one.dims))
        places = TINY["max_len"] * TINY["d_model"]  # of sinusoids, which need single precision
        assert sizes[HALF] > 2000 and sizes[SINGLE] <= places + 10


def test_the_graphs_say_nothing_of_where_they_were_made(graphs):
    for graph in graphs.values():
        content = graph.SerializeToString()
        assert b".py" not in content and b"site-packages" not in content


def test_relative_positions_are_refused():
    settings = replace(Settings(**TINY), n_layers=1)
    position = lambda: ALiBi(n_heads=settings.n_heads)  # noqa: E731
    with pytest.raises(ValueError, match="only a model with sinusoids"):
        script.graphs(EncoderDecoder(settings, position=position))


def test_the_words_are_the_test_words_with_all_their_pronunciations():
    entries = pronunciations.load("test")
    lines = script.words().splitlines()
    assert len(lines) == len(entries) == 12752
    for line, entry in zip(lines, entries, strict=True):
        word, _, listed = line.partition(" ")
        assert word == entry.word
        assert tuple(tuple(one.split()) for one in listed.split(",")) == entry.pronunciations


def test_the_page_learns_symbols_and_sizes(tiny):
    about = json.loads(json.dumps(script.about(tiny)))
    assert about["letters"] == list(LETTERS.symbols)
    assert about["phonemes"] == list(PHONEMES.symbols)
    sizes = about["layers"], about["heads"], about["maxLen"]
    assert sizes == (TINY["n_layers"], TINY["n_heads"], TINY["max_len"])
