"""`experiments/train_pronouncer.py` with a small model on few words, as a program of its own.

    python -m tests.small_pronouncer FOLDER DROPOUT [STEP]

FOLDER is that of the second round, `round-2`. With a STEP of all of training the process kills
itself there, as a machine does that loses its power.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

import train_pronouncer
from tests.pronouncers import TINY
from transformer_lit.encoder_decoder import Settings
from transformer_lit.training import Recipe

N_WORDS = 23  # 26 pairs: the last batch has one row
FIRST = Recipe(epochs=2, batch_size=7, rate=0.01, warmup=3, seed=5)
RECIPE = Recipe(epochs=4, batch_size=5, rate=0.01, warmup=3)
FIRST_DROPOUT = 0.5  # of that of the second round
SETTINGS = TINY | {"max_len": 19, "n_layers": 1}


def make(folder, recipe=RECIPE, n_words=N_WORDS, **changes):
    """Train into a folder; return the record of each epoch of the second round."""
    settings = Settings(**SETTINGS | changes)
    _, history = train_pronouncer.make(
        ((replace(settings, dropout=FIRST_DROPOUT * settings.dropout), FIRST), (settings, recipe)),
        folder.parent,
        folder / "pronouncer.safetensors",
        n_averaged=2,
        n_words=n_words,
        progress=False,
    )
    return history


def die_at(step):
    """Let this process be killed in the middle of a step."""
    whole, calls = torch.nn.utils.clip_grad_norm_, []

    def clip(*arguments):
        calls.append(None)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments)

    torch.nn.utils.clip_grad_norm_ = clip


if __name__ == "__main__":
    folder, dropout, *step = sys.argv[1:]
    if step:
        die_at(int(step[0]))
    make(Path(folder), dropout=float(dropout))
