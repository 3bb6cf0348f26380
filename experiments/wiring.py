"""Train encoder-decoders whose decoder blocks read the last encoder block, or each its own.

    python experiments/wiring.py

writes `transformer_lit/data/curves/wiring.json`, which chapter 11 draws. Each run is saved as soon
as it is done, and a run that is in the file already is not made again: to go on after a stop, give
the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F

from saved_runs import make_missing, some
from transformer_lit.checkpoints import vocabularies
from transformer_lit.data import pronunciations
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import (
    BEGIN,
    PAD_ID,
    STOP,
    EncoderDecoder,
    Settings,
)
from transformer_lit.vocabulary import pad

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "wiring.json"
LOG = ROOT / "runs" / "wiring.log"

WIRINGS = ("last layer", "layer by layer")
SEEDS = (0, 1, 2)
RECIPE = {
    "task": "the phonemes of an English word",
    "longest word": 8,
    "validation words": 2_000,
    "n_layers": 3,
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 256,
    "dropout": 0.0,
    "batch": 128,
    "steps": 2_000,
    "optimizer": "AdamW",
    "learning rate": 0.003,
    "schedule": "falls evenly to a twentieth by the last step",
    "decoding": "greedy, at most 16 symbols; any listed pronunciation is right",
}


class LayerByLayer(EncoderDecoder):
    """Block l of the decoder reads what block l of the encoder gives, not what the last one does.

    The norm behind the encoder serves all its blocks, so that no parameter is added.
    """

    def encode(self, source):
        """Read the source: keys and values for each block of the decoder, and the padding mask."""
        mask = (source != PAD_ID)[:, None, None]
        x, memory = self._embed(self.source_embedding, source), []
        for block, reader in zip(self.encoder.blocks, self.decoder, strict=True):
            x, _ = block(x, mask=mask)
            memory.append(reader.cross_attention.keys_values(self.encoder.norm(x)))
        return memory, mask


MODELS = dict(zip(WIRINGS, (EncoderDecoder, LayerByLayer), strict=True))


def data():
    """Return letters and phonemes of the training words as ids, and validation entries."""
    letters, phonemes = vocabularies()
    train, valid = (
        [entry for entry in pronunciations.load(part) if len(entry.word) <= RECIPE["longest word"]]
        for part in ("train", "validation")
    )
    valid = some(valid, RECIPE["validation words"])
    source = pad([letters.encode(entry.word) for entry in train]).values
    target = pad([phonemes.encode((BEGIN, *entry.pronunciations[0], STOP)) for entry in train])
    return source, target.values, valid, letters, phonemes


def train(model, source, target, *, seed, steps):
    """Train; four batches are drawn at once and sorted by length, so that less padding is read."""
    draws, rate = torch.Generator().manual_seed(seed), RECIPE["learning rate"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, steps)
    for _ in range(steps // 4):
        many = torch.randint(len(source), (4 * RECIPE["batch"],), generator=draws)
        for rows in many[(target[many] != PAD_ID).sum(1).argsort()].chunk(4):
            x, y = (
                ids[rows, : int((ids[rows] != PAD_ID).sum(1).max())] for ids in (source, target)
            )
            logits, answers = model(x, y[:, :-1]), y[:, 1:]
            real = answers != PAD_ID
            loss = F.cross_entropy(logits[real], answers[real])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def words_right(model, valid, letters, phonemes):
    """The share of words that are read aloud as one of their listed pronunciations."""
    source = pad([letters.encode(entry.word) for entry in valid]).values
    written = greedy(model.eval(), source, max_len=16)
    right = [
        tuple(phonemes.decode(found.tokens)) in entry.pronunciations
        for found, entry in zip(written, valid, strict=True)
    ]
    return sum(right) / len(right)


def one_run(wiring, seed, parts, *, steps, n_layers):
    """Train one model, and return how well it reads words it has not seen."""
    source, target, valid, letters, phonemes = parts
    sizes = {name: RECIPE[name] for name in ("d_model", "n_heads", "d_ff", "dropout")}
    torch.manual_seed(seed)
    settings = Settings(len(letters), len(phonemes), n_layers=n_layers, max_len=32, **sizes)
    model = MODELS[wiring](settings)
    train(model, source, target, seed=seed, steps=steps)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "words right": round(words_right(model, valid, letters, phonemes), 4),
    }


def main():
    """Make the runs that are missing from the file."""
    sizes, parts = {name: RECIPE[name] for name in ("steps", "n_layers")}, data()

    def run(**settings):
        return one_run(**settings, parts=parts, **sizes)

    wanted = [
        dict(zip(("wiring", "seed"), values, strict=True))
        for values in itertools.product(WIRINGS, SEEDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
