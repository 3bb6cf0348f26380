"""Train small pronouncers by teacher forcing and by scheduled sampling, in both its forms.

    python experiments/scheduled_sampling_runs.py

writes `transformer_lit/data/curves/scheduled_sampling.json`, which chapter 14 draws. Each run is
saved as soon as it is done, and a run that is in the file already is not made again: to go on after
a stop, give the same command; to start anew, delete the file.
"""

import itertools
import logging
from functools import partial
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from saved_runs import make_missing, some, to_train
from transformer_lit.checkpoints import Pronouncer, vocabularies
from transformer_lit.data.pronunciations import load
from transformer_lit.decoding import error_rates
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings
from transformer_lit.scheduled_sampling import (
    ScheduledSampling,
    exponential,
    inverse_sigmoid,
    linear,
    step_by_step,
    two_pass,
)
from transformer_lit.training import batch, teacher_forcing, train

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "scheduled_sampling.json"
LOG = ROOT / "runs" / "scheduled_sampling.log"

SEEDS = (0, 1, 2)
METHODS = (  # how the decoder's input is made, and the schedule
    ("teacher forcing", "none"),
    ("step by step", "inverse sigmoid"),
    ("two passes", "linear"),
    ("two passes", "exponential"),
    ("two passes", "inverse sigmoid"),
)
RECIPE = {
    "task": "the phonemes of an English word from its letters",
    "training words": 20_000,
    "validation words": 2_000,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "dropout": 0.0,
    "epochs": 5,
    "batch": 64,
    "rate": 0.003,
    "warmup": 200,
    "label smoothing": 0.1,
    "own symbol": "the likeliest",
    "probability of the truth": "falls to this by the last step",
    "least": 0.25,
}
letters, phonemes = vocabularies()


def draw(part, n_words):
    """Draw words of a part at random, the same ones every time."""
    return some(load(part), n_words)


def pairs(entries):
    """Each word with the first of its pronunciations."""
    return [
        (letters.encode(entry.word), phonemes.encode([BEGIN, *entry.pronunciations[0], STOP]))
        for entry in entries
    ]


def schedules(steps, least):
    """The three schedules, each of which comes to ``least`` after so many steps."""
    low, high = 1.0, float(steps)
    for _ in range(100):  # the slope of the inverse sigmoid, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if inverse_sigmoid(steps, k=middle) < least else (low, middle)
    return {
        "linear": partial(linear, k=1.0, c=(1 - least) / steps, least=least),
        "exponential": partial(exponential, k=least ** (1 / steps)),
        "inverse sigmoid": partial(inverse_sigmoid, k=high),
    }


@torch.no_grad()
def phonemes_right(model, examples):
    """The share of places, stop tokens included, that are right after the true beginning."""
    right = places = 0
    for start in range(0, len(examples), 250):
        source, target = batch(examples[start : start + 250], model)
        shown, labels = teacher_forcing(target)
        real = labels > 0
        right += int((model(source, shown).argmax(-1) == labels)[real].sum())
        places += int(real.sum())
    return right / places


def free_running(model, entries):
    """The shares of wrong words and wrong phonemes of what the model writes by itself."""
    pronouncer, spoken = Pronouncer(model, letters, phonemes, {}), []
    for start in range(0, len(entries), 250):
        answers = pronouncer.pronounce([entry.word for entry in entries[start : start + 250]])
        spoken += [phonemes.decode(answer.tokens) for answer in answers]
    return error_rates(spoken, [entry.pronunciations for entry in entries])


def one_run(method, schedule, seed, parts):
    """Train one model, and return how it does on words it has not seen."""
    examples, entries = parts
    recipe = to_train(RECIPE, seed)
    sizes = {name: RECIPE[name] for name in ("d_model", "n_heads", "n_layers", "d_ff", "dropout")}
    torch.manual_seed(seed)
    model = EncoderDecoder(
        Settings(source_size=len(letters), target_size=len(phonemes), max_len=48, **sizes)
    )
    learner = model
    if method != "teacher forcing":
        steps = recipe.epochs * -(-len(examples) // recipe.batch_size)
        learner = ScheduledSampling(
            model,
            schedule=schedules(steps, RECIPE["least"])[schedule],
            make_inputs={"step by step": step_by_step, "two passes": two_pass}[method],
        )
    history = train(
        learner,
        examples,
        recipe,
        after_epoch=lambda _, record: logging.info("%s %s %s %s", method, schedule, seed, record),
        progress=False,
    )
    model.eval()
    words, symbols = free_running(model, entries)
    return {
        "loss": [round(record["loss"], 3) for record in history],
        "word error rate": round(words, 4),
        "phoneme error rate": round(symbols, 4),
        "right after the truth": round(phonemes_right(model, pairs(entries)), 4),
    }


def main():
    """Make the runs that are missing from the file."""
    parts = (
        pairs(draw("train", RECIPE["training words"])),
        draw("validation", RECIPE["validation words"]),
    )

    def run(**settings):
        with sdpa_kernel(SDPBackend.MATH):  # words are so short that the fused kernel is slower
            return one_run(**settings, parts=parts)

    wanted = [
        {"method": method, "schedule": schedule, "seed": seed}
        for seed, (method, schedule) in itertools.product(SEEDS, METHODS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
