"""`experiments/train_pronouncer.py` with a small model on few words, as a program of its own.

    python -m tests.small_pronouncer FOLDER DROPOUT [STEP]

With a STEP the process kills itself there, as a machine does that loses its power.
"""

import os
import signal
import sys
from pathlib import Path

import torch

import train_pronouncer
from tests.pronouncers import TINY
from transformer_lit.encoder_decoder import Settings
from transformer_lit.training import Recipe

N_WORDS = 23  # 26 pairs: the last batch has one row
RECIPE = Recipe(epochs=4, batch_size=5, rate=0.01, warmup=3)
SETTINGS = TINY | {"max_len": 19, "n_layers": 1}


def make(folder, recipe=RECIPE, n_words=N_WORDS, **changes):
    """Train into a folder; return the record of each epoch."""
    return train_pronouncer.make(
        Settings(**SETTINGS | changes),
        recipe,
        folder,
        folder / "pronouncer.safetensors",
        n_averaged=2,
        n_words=n_words,
        progress=False,
    )


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
