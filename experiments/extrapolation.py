"""Train character models that differ in nothing but positions; read text longer than in training.

    python experiments/extrapolation.py

writes `transformer_lit/data/curves/extrapolation.json`, which chapter 07 draws. Each run is saved
as soon as it is done, and a run that is in the file already is not made again: to go on after a
stop, give the same command; to start anew, delete the file.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from saved_runs import make_missing
from transformer_lit.data import news
from transformer_lit.embedding import Embedding
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.positions import LearnedPositions, SinusoidalPositions
from transformer_lit.relative_positions import T5, ALiBi, RoPE, Shaw, TransformerXL
from transformer_lit.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "extrapolation.json"
LOG = ROOT / "runs" / "extrapolation.log"

SEEDS = (0, 1, 2)
LENGTHS = (128, 256, 512, 1024)
RECIPE = {
    "text": "news, as characters; the first 270 of 300 documents to train on, the others to test",
    "tested on": "the same 16,384 characters at every length, cut into pieces of that length",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "length": 128,
    "batch": 16,
    "steps": 1000,
    "optimizer": "Adam",
    "learning rate": "0.003, falling evenly to 0",
    "Shaw's clip": 16,
    "T5's buckets": 32,
    "T5's max_distance": 128,
}
SIZES = {"d_model": 64, "n_heads": 4}
HEADS = {"n_heads": 4, "d_head": 16}

ABSOLUTE = {
    "sinusoidal": lambda: SinusoidalPositions(d_model=64, max_len=max(LENGTHS)),
    "learned": lambda: LearnedPositions(d_model=64, max_len=128),
}
RELATIVE = {
    "Shaw": lambda: Shaw(d_head=16, clip=16),
    "T5": lambda: T5(n_heads=4, causal=True, n_buckets=32, max_distance=128),
    "RoPE": lambda: RoPE(d_head=16, layout="half-split"),
    "ALiBi": lambda: ALiBi(n_heads=4),
    "Transformer-XL": lambda: TransformerXL(**HEADS),
}
METHODS = ("none", *ABSOLUTE, *RELATIVE)


class Layer(nn.Module):
    """Attention to what stands before, then a small network at each place."""

    def __init__(self, position):
        super().__init__()
        self.attention = MultiHeadAttention(**SIZES, position=position)
        self.network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.norms = nn.ModuleList([nn.LayerNorm(64), nn.LayerNorm(64)])

    def forward(self, x, mask):
        """Add what each of the two parts makes of the normalised vectors."""
        x = x + self.attention(self.norms[0](x), mask=mask)[0]
        return x + self.network(self.norms[1](x))


class Model(nn.Module):
    """Guess each character from those before it."""

    def __init__(self, method, vocab_size):
        super().__init__()
        self.embedding = Embedding(vocab_size=vocab_size, d_model=64)
        self.absolute = ABSOLUTE.get(method, nn.Identity)()
        relative = RELATIVE.get(method, lambda: None)
        self.layers = nn.ModuleList(Layer(relative()) for _ in range(2))
        self.output = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, vocab_size))

    def forward(self, tokens):
        """Score the characters that may follow each one."""
        n = tokens.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=tokens.device).tril()[None, None]
        x = self.absolute(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x, mask)
        return self.output(x)


def text():
    """Return the ids to train on, those to test on, and how many characters there are."""
    documents = news.load()
    vocabulary = Vocabulary("".join(documents[:270]) + "\n")
    train, test = ("\n".join(part) for part in (documents[:270], documents[270:]))
    return vocabulary.encode(train), vocabulary.encode(test), len(vocabulary)


def train(model, ids, *, steps, generator, length=128, batch=16):
    """Train on random pieces of the text."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        starts = torch.randint(len(ids) - length, (batch, 1), generator=generator)
        pieces = ids[starts + torch.arange(length + 1)]
        loss = F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def perplexity(model, ids, length, *, total=16_384):
    """Perplexity of the same `total` characters, read in pieces of `length`."""
    inputs, targets = ids[:total].view(-1, length), ids[1 : total + 1].view(-1, length)
    losses = [
        F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in zip(inputs.split(4096 // length), targets.split(4096 // length), strict=True)
    ]
    return math.exp(sum(losses) / total)


def one_run(method, seed, data, *, steps):
    """Train one model, and return its perplexity at each length; None where it can't read it."""
    train_ids, test_ids, vocab_size = data
    torch.manual_seed(seed)
    model = Model(method, vocab_size)
    train(model, train_ids, steps=steps, generator=torch.Generator().manual_seed(seed))
    longest = 128 if method == "learned" else max(LENGTHS)
    return [
        round(perplexity(model, test_ids, length), 3) if length <= longest else None
        for length in LENGTHS
    ]


def main():
    """Make the runs that are missing from the file."""
    data = text()

    def run(method, seed):
        return {"perplexity": one_run(method, seed, data, steps=RECIPE["steps"])}

    wanted = [{"method": method, "seed": seed} for seed in SEEDS for method in METHODS]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run, lengths=list(LENGTHS))


if __name__ == "__main__":
    main()
