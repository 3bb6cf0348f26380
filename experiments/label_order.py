"""Train the same small model to name the digits of a picture, in three orders of the labels.

    python experiments/label_order.py

writes `transformer_lit/data/curves/label_order.json`, which chapter 17 draws. Each run is saved as
soon as it is done, and a run that is in the file already is not made again: to go on after a stop,
give the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch

from saved_runs import make_missing
from transformer_lit.data import digits
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import (
    BEGIN,
    STOP,
    EncoderDecoder,
    Settings,
    target_vocabulary,
)
from transformer_lit.sequences import picture_tokens, read_labels
from transformer_lit.training import Recipe, train

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "label_order.json"
LOG = ROOT / "runs" / "label_order.log"

LABELS = "0123456789"
ORDERS = ("left to right", "by value", "at random")
SEEDS = (0, 1, 2)
RECIPE = {
    "task": "the set of digits in a picture of two",
    "training pictures": 4_000,
    "test pictures": 1_000,
    "patch": 2,
    "levels": 2,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "batch": 16,
    "epochs": 4,
    "rate": 1.5e-3,
    "warmup": 50,
    "orders": "one for each picture, the same in all epochs",
}


def pictures(part, count, seed):
    """Draw two digits side by side, `count` times: pictures, and the labels from left to right."""
    images, labels = map(torch.from_numpy, digits.load(part))
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(images), (count, 2), generator=draws)
    joined = torch.cat([images[rows[:, 0]], images[rows[:, 1]]], dim=2)
    return joined, [[str(label) for label in pair] for pair in labels[rows].tolist()]


def ordered(labels, order, draws):
    """Put the labels of one picture, each once, into an order."""
    once = list(dict.fromkeys(labels))
    if order == "by value":
        return sorted(once)
    if order == "at random":
        return [once[i] for i in torch.randperm(len(once), generator=draws)]
    return once


def one_run(order, seed):
    """Train one model, and score the sets that it writes for pictures of unseen digits."""
    r = RECIPE
    cut = {"patch": r["patch"], "levels": r["levels"]}
    target = target_vocabulary(LABELS)
    joined, labels = pictures("train", r["training pictures"], seed)
    draws = torch.Generator().manual_seed(seed)
    pairs = [
        (tokens, target.encode([BEGIN, *ordered(row, order, draws), STOP]))
        for tokens, row in zip(picture_tokens(joined, **cut), labels, strict=True)
    ]
    sizes = {name: r[name] for name in ("d_model", "n_heads", "n_layers", "d_ff")}
    source_size = r["levels"] ** r["patch"] ** 2 + 1
    torch.manual_seed(seed)
    model = EncoderDecoder(
        Settings(source_size=source_size, target_size=len(target), **sizes, dropout=0.0)
    )
    recipe = Recipe(
        epochs=r["epochs"],
        batch_size=r["batch"],
        rate=r["rate"],
        warmup=r["warmup"],
        label_smoothing=0.0,
        seed=seed,
    )
    train(model, pairs, recipe, progress=False)
    joined, labels = pictures("test", r["test pictures"], seed)
    written = greedy(model, picture_tokens(joined, **cut), max_len=5)
    said = [target.decode(one.tokens) for one in written]
    sets = [read_labels(one, LABELS) for one in said]
    truth = [set(row) for row in labels]
    shared = sum(len(a & b) for a, b in zip(sets, truth, strict=True))
    return {
        "sets right": round(sum(map(set.__eq__, sets, truth)) / len(truth), 3),
        "labels found": round(shared / sum(map(len, truth)), 3),
        "with a repeat": round(sum(len(set(one)) < len(one) for one in said) / len(said), 3),
    }


def main():
    """Make the runs that are missing from the file."""
    wanted = [{"order": order, "seed": seed} for seed, order in itertools.product(SEEDS, ORDERS)]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=one_run)


if __name__ == "__main__":
    main()
