"""Train Elman, LSTM and self-attention to recall one symbol, or one of many, and count by distance.

    python experiments/recall.py

writes `transformer_lit/data/curves/recall.json`, which chapter 19 draws. Each run is saved as soon
as it is done, and a run that is in the file already is not made again: to go on after a stop, give
the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from saved_runs import make_missing
from transformer_lit.data import news
from transformer_lit.embedding import Embedding
from transformer_lit.masking import causal_mask
from transformer_lit.multi_head import MultiHeadAttention
from transformer_lit.recurrence import LSTM, Elman

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "recall.json"
LOG = ROOT / "runs" / "recall.log"

SEEDS = (0, 1, 2)
MODELS = ("Elman", "LSTM", "self-attention")
RECIPE = {
    "one digit": "a passage of news of 48 letters and spaces, one of them replaced by a digit; "
    "the answer behind the last is that digit",
    "a phone book": "24 different names with a digit each; the answer at each place is the digit "
    "of one name that was read, drawn evenly, the one at that place included",
    "d_model": 64,
    "states": {"Elman": 102, "LSTM": 41, "wide LSTM": 164},
    "self-attention": "one head, causal, no positions",
    "forget_bias": 1.0,
    "steps": {"one digit": 1200, "a phone book": 1500},
    "batch": 64,
    "optimizer": "Adam, 0.003, gradients clipped at 1",
    "test": {"one digit": 10_000, "a phone book": 2_000},
    "test lengths": {"one digit": 96, "a phone book": 24},
}
BOOK, DIGITS, NAMES = 24, 10, 26


class Recall(nn.Module):
    """The sum of one embedding per field, a layer, and a linear layer that names a digit."""

    def __init__(self, kind, fields):
        super().__init__()
        d_model, states = RECIPE["d_model"], RECIPE["states"]
        self.fields = nn.ModuleList(Embedding(vocab_size=n, d_model=d_model) for n in fields)
        if kind == "self-attention":
            self.layer = MultiHeadAttention(d_model=d_model, n_heads=1)
        else:
            layer = Elman if kind == "Elman" else LSTM
            self.layer = layer(d_model=d_model, d_state=states[kind])
        self.output = nn.Linear(states.get(kind, d_model), DIGITS)

    def forward(self, tokens):
        """Score the digits at each place of `(batch, seq, fields)`."""
        x = sum(field(ids) for field, ids in zip(self.fields, tokens.unbind(-1), strict=True))
        if isinstance(self.layer, MultiHeadAttention):
            y, _ = self.layer(x, mask=causal_mask(x.shape[1]))
        else:
            y, _ = self.layer(x)
        return self.output(y)


class OneDigit:
    """Passages of news with one digit in them."""

    name, fields, seq = "one digit", (DIGITS + 27,), 48

    def __init__(self):
        text = " ".join(word for story in news.load() for word in news.words(story))
        alphabet = "abcdefghijklmnopqrstuvwxyz "
        ids = [DIGITS + alphabet.index(letter) for letter in text if letter in alphabet]
        self.text = torch.tensor(ids)

    def draw(self, count, generator, seq=seq):
        """Draw tokens, answers (-1 where nothing is asked) and the distance of what is asked."""
        rows, places = torch.arange(count), torch.arange(seq)
        start = torch.randint(len(self.text) - seq, (count,), generator=generator)
        tokens = self.text[start[:, None] + places]
        distance = torch.randint(seq, (count,), generator=generator)
        digit = torch.randint(DIGITS, (count,), generator=generator)
        tokens[rows, seq - 1 - distance] = digit
        answers = torch.full_like(tokens, -1)
        answers[:, -1] = digit
        return tokens[..., None], answers, distance[:, None].expand_as(answers)


class PhoneBook:
    """Names with a digit each, and at each place a question for one that was read."""

    name, fields, seq = "a phone book", (NAMES, DIGITS, NAMES), BOOK

    def draw(self, count, generator, seq=seq):
        """Draw tokens, answers and the distance of what is asked."""
        names = torch.rand(count, NAMES, generator=generator).argsort(1)[:, :seq]
        digits = torch.randint(DIGITS, (count, seq), generator=generator)
        places = torch.arange(seq)
        asked = (torch.rand(count, seq, generator=generator) * (places + 1)).long()
        tokens = torch.stack([names, digits, names.gather(1, asked)], dim=-1)
        return tokens, digits.gather(1, asked), places - asked


def train(model, task, *, steps, generator):
    """Train a model on fresh draws of a task."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(steps):
        tokens, answers, _ = task.draw(RECIPE["batch"], generator)
        asked = answers >= 0
        loss = F.cross_entropy(model(tokens)[asked], answers[asked])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def recalled(model, task, *, count, seq):
    """The share of right answers at each distance, of new draws that are the same every time."""
    tokens, answers, distance = task.draw(count, torch.Generator().manual_seed(1234), seq)
    asked = answers >= 0
    right = (model(tokens).argmax(-1) == answers)[asked].double()
    total = torch.bincount(distance[asked], minlength=seq)
    return (torch.bincount(distance[asked], right, minlength=seq) / total).tolist()


def one_run(task, kind, seed, *, steps):
    """Train one model, and return what it recalls by distance, and how many numbers it learned."""
    torch.manual_seed(seed)
    model = Recall(kind, task.fields)
    train(model, task, steps=steps, generator=torch.Generator().manual_seed(seed))
    count, seq = RECIPE["test"][task.name], RECIPE["test lengths"][task.name]
    shares = recalled(model, task, count=count, seq=seq)
    return {
        "parameters": sum(p.numel() for p in model.layer.parameters()),
        "recall": [round(share, 3) for share in shares],
    }


def main():
    """Make the runs that are missing from the file."""
    torch.set_num_threads(1)
    tasks = {task.name: task for task in (OneDigit(), PhoneBook())}

    def run(task, model, seed):
        return one_run(tasks[task], model, seed, steps=RECIPE["steps"][task])

    pairs = [*itertools.product(tasks, MODELS), ("a phone book", "wide LSTM")]
    wanted = [
        {"task": task, "model": model, "seed": seed}
        for (task, model), seed in itertools.product(pairs, SEEDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
