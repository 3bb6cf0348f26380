"""Write the pronouncer down as ONNX, for the page of the site that runs it in the browser.

    python experiments/pronouncer_to_onnx.py FOLDER

writes four files: `encoder.onnx` turns letters into the keys and values of each decoder block,
`decoder.onnx` turns what is written so far into log-probabilities of what comes next and the
weights of the cross-attention, `words.txt` has the test words with their pronunciations, and
`about.json` the symbols and sizes. The site's build does this by itself (`tools/site.py`).
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from saved_runs import write_whole
from transformer_lit.checkpoints import Pronouncer, load_pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.encoder_decoder import EncoderDecoder
from transformer_lit.masking import causal_mask


class Encode(nn.Module):
    """Letters of one word in, ``(1, letters)``; keys and values out.

    Each is ``(layers, 1, heads, letters, d_head)``. The same as `EncoderDecoder.encode`, without
    its checks: they look at the numbers, which a graph does not have yet.
    """

    def __init__(self, model: EncoderDecoder):
        super().__init__()
        self.model = model

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Read the word. There is one, so nothing of it is padding."""
        x, _ = self.model.encoder(embed(self.model, self.model.source_embedding.weight, source))
        pairs = [block.cross_attention.keys_values(x) for block in self.model.decoder]
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys), torch.stack(values)


class Decode(nn.Module):
    """A beginning in, ``(1, seq)``, with keys and values of the word; what comes next out.

    That is the log-probability of each phoneme, ``(phonemes,)``, and the cross-attention's weights,
    ``(layers, heads, seq, letters)``. Each step computes all places anew, for words are short.
    """

    def __init__(self, model: EncoderDecoder):
        super().__init__()
        self.model = model

    def forward(self, target: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step, as `EncoderDecoder.decode` does, without its checks."""
        x = embed(self.model, self.model.target_embedding.weight, target)
        masks = {
            "mask": causal_mask(target.shape[1]),
            "memory_mask": torch.ones(1, 1, 1, keys.shape[3], dtype=torch.bool),
        }
        all_weights = []
        for layer, block in enumerate(self.model.decoder):
            x, weights = block(x, (keys[layer], values[layer]), need_weights=True, **masks)
            all_weights.append(weights)
        logits = self.model.output(self.model.norm(x))[0, -1]
        return logits.log_softmax(-1), torch.cat(all_weights)


def embed(model: EncoderDecoder, table: Tensor, tokens: Tensor) -> Tensor:
    """Look symbols up and add their places."""
    return table[tokens] * model.settings.d_model**0.5 + model.places.table[: tokens.shape[1]]


def graphs(model: EncoderDecoder) -> dict[str, onnx.ModelProto]:
    """Trace both parts of a model, any number of letters, phonemes and beams allowed.

    Raises:
        ValueError: if the model has relative positions instead of sinusoids.
    """
    if not model.absolute:
        raise ValueError("only a model with sinusoids is written down")
    encode, decode = Encode(model).eval(), Decode(model).eval()
    source, target = torch.tensor([[3, 5, 7, 9, 11]]), torch.tensor([[1, 5, 9]])
    keys, values = encode(source)
    letters, seq = Dim("letters"), Dim("seq")
    return {
        "encoder": trace(encode, {"source": source}, ["keys", "values"], [{1: letters}]),
        "decoder": trace(
            decode,
            {"target": target, "keys": keys, "values": values},
            ["log_probs", "weights"],
            [{1: seq}, {3: letters}, {3: letters}],
        ),
    }


def trace(module: nn.Module, inputs: dict, outputs: list[str], dynamic: list) -> onnx.ModelProto:
    """Export one module."""
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=tuple(dynamic),
        dynamo=True,
        verbose=False,
    )
    return halve(program.model_proto)


def halve(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Store numbers in half precision where that loses nothing: half the bytes to load.

    The checkpoint is in half precision, so that is nearly all of them. A cast behind each makes
    them single again, once, when the graph is loaded: what is computed stays the same.
    """
    casts = []
    for initializer in graph.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        name, whole = initializer.name, onnx.numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and stays single
            half = whole.astype(np.float16)
        if (half == whole).all():
            initializer.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            to = onnx.TensorProto.FLOAT
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=to))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:], graph.metadata_props[:], graph.graph.value_info[:]
    graph.graph.node.extend(nodes)
    for node in graph.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from, on this machine
        node.doc_string = ""
    onnx.checker.check_model(graph)
    return graph


def about(pronouncer: Pronouncer) -> dict:
    """Return what a page has to know: the symbols in the order of their ids, and the sizes."""
    settings = pronouncer.model.settings
    return {
        "letters": pronouncer.letters.symbols,
        "phonemes": pronouncer.phonemes.symbols,
        "layers": settings.n_layers,
        "heads": settings.n_heads,
        "maxLen": settings.max_len,
    }


def words() -> str:
    """Return the test words, one a line: `word P1 P2,P1 P3` with a comma between pronunciations."""
    return "".join(
        f"{word} {','.join(map(' '.join, listed))}\n"
        for word, listed in pronunciations.load("test")
    )


def main(folder: Path) -> None:
    """Write the four files."""
    pronouncer = load_pronouncer()
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs(pronouncer.model).items():
        write_whole(folder / f"{name}.onnx", graph.SerializeToString(deterministic=True))
    write_whole(folder / "words.txt", words().encode())
    write_whole(folder / "about.json", json.dumps(about(pronouncer)).encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except IndexError:
        sys.exit("Say which folder to write into.")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
