"""Tell digits apart with convolutions, with attention and with neither, from few images and many.

    python experiments/digits_by_training_size.py

writes `transformer_lit/data/curves/digits_by_training_size.json`, which chapter 18 draws. Each run
is saved as soon as it is done, and a run that is in the file already is not made again: to go on
after a stop, give the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from saved_runs import make_missing
from transformer_lit.convolution import VisionTransformer
from transformer_lit.data import digits

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "digits_by_training_size.json"
LOG = ROOT / "runs" / "digits_by_training_size.log"

SEEDS = (0, 1, 2, 3, 4)
SIZES = (20, 50, 100, 300, 1297)  # images to learn from
RATES = {"convolution": 0.01, "convolution, scrambled": 0.01, "attention": 0.003, "linear": 0.03}
RECIPE = {
    "task": "which of ten digits an image of 8 x 8 pixels shows",
    "scored on": "the 250 images of the test part",
    "convolution": "3 x 3: 1 to 16 and 16 to 32 channels, halved, 32 to 32, halved; then linear",
    "attention": "patches of 2 x 2, summary token, learned places, 2 pre-norm blocks, d_model 32, "
    "4 heads, d_ff 64",
    "convolution, scrambled": "the convolution, with the pixels of all images in another order",
    "linear": "one linear layer on the 64 pixels",
    "images": "drawn without return for each seed; the largest size is all of them",
    "batch": 32,
    "steps": 600,
    "optimizer": "AdamW, weight decay 0.01",
    "learning rates": RATES,
    "learning rate": "falls evenly to a twentieth of it by the last step; best of three on the "
    "validation part with other seeds, for 50 and 1,297 images; that of the scrambled is copied",
}


def make(model):
    """Make a model with new weights."""
    if model == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    if model == "attention":
        sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64}
        return VisionTransformer(image=(8, 8), size=2, channels=1, n_classes=10, **sizes)
    halve = nn.MaxPool2d(2)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), halve),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), halve),
        *(nn.Flatten(), nn.Linear(32 * 2 * 2, 10)),
    )


def data(part):
    """Return the images of a part, (images, 1, 8, 8), and the digits they show."""
    images, labels = digits.load(part)
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


def scrambled(images, seed):
    """Put the pixels of all images into the same new order, which leaves no neighbours."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
    return images.flatten(2)[..., order].view_as(images)


def train(model, images, labels, *, rate, steps, generator):
    """Train on batches drawn at random."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (RECIPE["batch"],), generator=generator)
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def right(model, images, labels):
    """Count the images whose digit is named."""
    return int((model(images).argmax(-1) == labels).sum())


def one_run(model, size, seed, parts, *, steps):
    """Train one model on some images, and count what it gets right of those and of new ones."""
    (images, labels), (test_images, test_labels) = parts
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=generator)[:size]
    if model == "convolution, scrambled":
        images, test_images = (scrambled(x, seed) for x in (images, test_images))
    torch.manual_seed(seed)
    net = make(model)
    some = images[rows], labels[rows]
    train(net, *some, rate=RATES[model], steps=steps, generator=generator)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "share right in training": round(right(net, *some) / len(rows), 3),
        "right": right(net, test_images, test_labels),
    }


def main():
    """Make the runs that are missing from the file."""
    torch.set_num_threads(1)
    parts = data("train"), data("test")

    def run(**settings):
        return one_run(**settings, parts=parts, steps=RECIPE["steps"])

    wanted = [
        dict(zip(("model", "size", "seed"), values, strict=True))
        for values in itertools.product(RATES, SIZES, SEEDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
