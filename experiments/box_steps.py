"""Train the detector of chapter 17 four times as long, and score its boxes on the way.

    python experiments/box_steps.py

writes `transformer_lit/data/curves/box_steps.json`, which chapter 17 prints. Each run is saved as
soon as it is done, and a run that is in the file already is not made again: to go on after a stop,
give the same command; to start anew, delete the file.
"""

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
from transformer_lit.sequences import (
    Box,
    picture_tokens,
    precision_recall,
    read_boxes,
    write_boxes,
)
from transformer_lit.training import Recipe, train

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "box_steps.json"
LOG = ROOT / "runs" / "box_steps.log"

SEEDS = (0,)
RECIPE = {
    "task": "the boxes and labels of up to three digits on a canvas",
    "size": 16,
    "n_bins": 17,
    "training canvases": 4_000,
    "test canvases": 300,
    "patch": 2,
    "levels": 2,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "batch": 16,
    "epochs": 16,
    "scored every": 4,  # epochs
    "rate": 1.5e-3,
    "warmup": 50,
}


def ink(image):
    """Return top, left, bottom and right of what is black after rounding."""
    rows, columns = ((image > 0.5).any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def scene(images, labels, draws):
    """Throw three digits on a canvas, at even places; one that would cover another is left out."""
    size = RECIPE["size"]
    canvas, boxes = torch.zeros(size, size), []
    for i in torch.randint(len(images), (3,), generator=draws).tolist():
        y, x = (2 * torch.randint(size // 2 - 3, (2,), generator=draws)).tolist()
        if not canvas[y : y + 8, x : x + 8].any():
            canvas[y : y + 8, x : x + 8] = images[i]
            top, left, bottom, right = ink(images[i])
            boxes.append(Box(y + top, x + left, y + bottom, x + right, str(int(labels[i]))))
    return canvas, sorted(boxes)


def scenes(part, count, draws):
    """Draw canvases as ids, and the boxes of each."""
    images, labels = map(torch.from_numpy, digits.load(part))
    canvases, boxes = zip(*(scene(images, labels, draws) for _ in range(count)), strict=True)
    cut = {"patch": RECIPE["patch"], "levels": RECIPE["levels"]}
    return picture_tokens(torch.stack(canvases), **cut), boxes


def score(model, target, sources, truth):
    """Precision and recall at an overlap of one half, with the labels and without."""
    found = []
    for one in greedy(model, sources, max_len=32):
        try:
            symbols = target.decode(one.tokens)
            found.append(read_boxes(symbols, size=RECIPE["size"], n_bins=RECIPE["n_bins"]))
        except ValueError:  # malformed: no answer
            found.append([])
    bare = [[[box._replace(label="") for box in some] for some in part] for part in (found, truth)]
    names = "precision", "recall", "precision of places", "recall of places"
    shares = *precision_recall(found, truth), *precision_recall(*bare)
    return {name: round(share, 3) for name, share in zip(names, shares, strict=True)}


def one_run(seed):
    """Train one detector, and return its scores on unseen digits along the way."""
    r = RECIPE
    draws = torch.Generator().manual_seed(seed)
    bins = [f"@{place}" for place in range(r["n_bins"])]
    target = target_vocabulary([*bins, *(str(digit) for digit in range(10))])
    sources, boxes = scenes("train", r["training canvases"], draws)
    written = (write_boxes(some, size=r["size"], n_bins=r["n_bins"]) for some in boxes)
    answers = [target.encode([BEGIN, *symbols, STOP]) for symbols in written]
    tested = scenes("test", r["test canvases"], draws)
    sizes = {name: r[name] for name in ("d_model", "n_heads", "n_layers", "d_ff")}
    source_size = r["levels"] ** r["patch"] ** 2 + 1
    torch.manual_seed(seed)
    model = EncoderDecoder(
        Settings(source_size, len(target), **sizes, dropout=0.0, max_len=80),
    )
    recipe = Recipe(r["epochs"], r["batch"], r["rate"], r["warmup"], label_smoothing=0.0, seed=seed)
    scores = []

    def after_epoch(model, record):
        if record["epoch"] % r["scored every"] == 0:
            scores.append({"step": record["step"], **score(model, target, *tested)})

    pairs = list(zip(sources, answers, strict=True))
    train(model, pairs, recipe, after_epoch=after_epoch, progress=False)
    return {"scores": scores}


def main():
    """Make the runs that are missing from the file."""
    wanted = [{"seed": seed} for seed in SEEDS]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=one_run)


if __name__ == "__main__":
    main()
