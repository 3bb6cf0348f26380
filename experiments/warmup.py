"""Train tall stacks, pre-norm and post-norm, with and without a warm-up of the learning rate.

    python experiments/warmup.py

writes `transformer_lit/data/curves/warmup.json`, which chapter 09 draws. Each run is saved as soon
as it is done, and a run that is in the file already is not made again: to go on after a stop, give
the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from saved_runs import make_missing, some
from transformer_lit.block import Block, FeedForward, LayerNorm
from transformer_lit.data import alignment
from transformer_lit.data.pronunciations import LETTERS
from transformer_lit.embedding import Embedding
from transformer_lit.masking import padding_mask
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.positions import SinusoidalPositions
from transformer_lit.vocabulary import Vocabulary, pad

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "warmup.json"
LOG = ROOT / "runs" / "warmup.log"

ORDERS = ("post-norm", "pre-norm")
SEEDS = (0, 1, 2)
RATES = (0.003, 0.001)
WARMUPS = (0, 100)  # steps
RECIPE = {
    "task": "one chunk of sound for each letter of an English word",
    "training words": 20_000,
    "validation words": 2_000,
    "n_layers": 12,
    "d_model": 32,
    "n_heads": 4,
    "d_ff": 128,
    "positions": "sinusoids",
    "first weights": "Xavier uniform, biases zero; embeddings of standard deviation 1",
    "batch": 64,
    "steps": 300,
    "optimizer": "Adam",
    "learning rate": "rises evenly over the steps of the warm-up, then stays",
    "loss": "cross-entropy per letter in training, the mean of 10 steps at a time",
}


class Stack(nn.Module):
    """Tag letters: embedding, places, the blocks, and a linear layer."""

    def __init__(self, order, *, n_letters, n_chunks, longest, n_layers):
        super().__init__()
        d_model, n_heads, d_ff = (RECIPE[name] for name in ("d_model", "n_heads", "d_ff"))
        self.letter = Embedding(vocab_size=n_letters, d_model=d_model)
        self.place = SinusoidalPositions(d_model=d_model, max_len=longest)
        self.blocks = nn.ModuleList(
            Block(
                attention=MultiHeadAttention(d_model=d_model, n_heads=n_heads),
                feed_forward=FeedForward(d_model=d_model, d_ff=d_ff),
                d_model=d_model,
                norm_first=order == "pre-norm",
            )
            for _ in range(n_layers)
        )
        # Behind the last block of a pre-norm stack nothing is normalised yet.
        self.norm = LayerNorm(d_model=d_model) if order == "pre-norm" else nn.Identity()
        self.output = nn.Linear(d_model, n_chunks)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens):
        """Score the chunks for each letter."""
        x = self.place(self.letter(tokens))
        mask = padding_mask((tokens > 0).sum(1), tokens.shape[1])
        for block in self.blocks:
            x, _ = block(x, mask=mask)
        return self.output(self.norm(x))


def draw(part, n_words):
    """Draw words of a part at random, the same ones every time."""
    return some(alignment.aligned(part), n_words)


def data(n_train=RECIPE["training words"], n_valid=RECIPE["validation words"]):
    """Return letters and chunks of both parts as ids, and the sizes of both vocabularies."""
    parts = draw("train", n_train), draw("validation", n_valid)
    letters = Vocabulary(LETTERS)
    chunks = Vocabulary(sorted({chunk for word in parts[0] for chunk in word.chunks}))
    ids = [
        pad([vocabulary.encode(getattr(word, of)) for word in words]).values
        for words in parts
        for vocabulary, of in ((letters, "word"), (chunks, "chunks"))
    ]
    longest = max(ids[0].shape[1], ids[2].shape[1])
    return *ids, {"n_letters": len(letters), "n_chunks": len(chunks), "longest": longest}


def train(model, x, y, *, rate, warmup, steps, generator):
    """Train, and return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) if warmup else 1.0
    )
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(x), (RECIPE["batch"],), generator=generator)
        seq = int((x[rows] > 0).sum(1).max())
        tokens, answers = x[rows, :seq], y[rows, :seq]
        real = tokens > 0
        loss = F.cross_entropy(model(tokens)[real], answers[real])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def letters_right(model, x, y):
    """The share of letters that get the right chunk."""
    return float((model(x).argmax(-1) == y)[x > 0].float().mean())


def one_run(order, rate, warmup, seed, parts, *, steps, n_layers):
    """Train one stack, and return its losses and how well it tags words it has not seen."""
    x_train, y_train, x_valid, y_valid, sizes = parts
    torch.manual_seed(seed)
    model = Stack(order, n_layers=n_layers, **sizes)
    generator = torch.Generator().manual_seed(seed)
    losses = train(
        model, x_train, y_train, rate=rate, warmup=warmup, steps=steps, generator=generator
    )
    means = torch.tensor(losses).view(-1, 10).mean(1).tolist()
    return {
        "loss": [round(loss, 3) for loss in means],
        "letters right": round(letters_right(model, x_valid, y_valid), 3),
    }


def main():
    """Make the runs that are missing from the file."""
    sizes = {"steps": RECIPE["steps"], "n_layers": RECIPE["n_layers"]}
    parts = data()

    def run(**settings):
        return one_run(**settings, parts=parts, **sizes)

    wanted = [
        dict(zip(("order", "rate", "warmup", "seed"), values, strict=True))
        for values in itertools.product(ORDERS, RATES, WARMUPS, SEEDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
