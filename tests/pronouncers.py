"""A pronouncer of a few thousand random weights, written as the trained one is."""

import json
from dataclasses import asdict
from hashlib import sha256

import torch
from safetensors.torch import save

from transformer_lit.checkpoints import vocabularies
from transformer_lit.encoder_decoder import EncoderDecoder, Settings
from transformer_lit.training import weights

LETTERS, PHONEMES = vocabularies()
TINY = {
    "source_size": len(LETTERS),
    "target_size": len(PHONEMES),
    "d_model": 14,
    "n_heads": 2,
    "n_layers": 2,
    "d_ff": 23,
    "dropout": 0.1,
    "max_len": 11,
}


def write_pronouncer(path, **changes):
    """Write weights and description; return the path of the weights."""
    torch.manual_seed(3)
    settings = Settings(**TINY | changes)
    model = EncoderDecoder(settings)
    content = save({name: value.half() for name, value in weights(model).items()})
    path.write_bytes(content)
    about = {"settings": asdict(settings), "sha256": sha256(content).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def describe(path, **changes):
    """Change the description of the weights, their digest made right again."""
    file = path.with_suffix(".json")
    about = json.loads(file.read_text())
    digest = sha256(path.read_bytes()).hexdigest()
    file.write_text(json.dumps(about | {"sha256": digest} | changes))
