"""Train models that shorten reports, with and without copying, with and without unknown names.

    python experiments/copying_runs.py

writes `transformer_lit/data/curves/copying.json`, which chapter 16 reads. Each run is saved as soon
as it is done, and a run that is in the file already is not made again: to go on after a stop, give
the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch

from saved_runs import make_missing
from transformer_lit.copying import (
    UNKNOWN_ID,
    ExtendedVocabulary,
    PointerGenerator,
    word_vocabulary,
)
from transformer_lit.data import reports
from transformer_lit.decoding import greedy
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings
from transformer_lit.training import Recipe, train
from transformer_lit.vocabulary import pad

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "copying.json"
LOG = ROOT / "runs" / "copying.log"

MODELS = {"without": EncoderDecoder, "copying": PointerGenerator}
NAMES = ("known and rare", "known")  # that the reports of the training have
SEEDS = (0, 1, 2)
RECIPE = {
    "task": "summaries of made-up reports; a name mentioned once in the news is unknown",
    "training reports": 6_000,
    "test reports": 500,
    "epochs": 4,
    "batch": 64,
    "rate": 3e-3,
    "warmup": 50,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 128,
}


def names():
    """Return the known names with their mentions, the rare ones, and the new ones."""
    mentions = reports.names()
    once = [name for name, count in mentions.items() if count == 1]
    known = {name: count for name, count in mentions.items() if count > 1}
    return known, dict.fromkeys(once[::2], 1), dict.fromkeys(once[1::2], 1)


def one_run(model, names_in_training, seed):
    """Train one model, and return the share of summaries it gets right, by kind of name."""
    known, rare, new = names()
    words = {w for pattern in reports.PATTERNS for half in pattern for w in half.split()}
    vocabulary = word_vocabulary([*sorted(words - set("vxyz")), *known])

    def ids(report, text):
        found = ExtendedVocabulary(vocabulary, report.source).encode(text)
        # Without copying, all words beyond the list are the same.
        beyond = found >= len(vocabulary)
        return found if model == "copying" else found.masked_fill(beyond, UNKNOWN_ID)

    among = known | rare if names_in_training == "known and rare" else known
    pairs = [
        (ids(report, report.source), ids(report, [BEGIN, *report.summary, STOP]))
        for report in reports.draw(RECIPE["training reports"], among, seed)
    ]
    sizes = {name: RECIPE[name] for name in ("d_model", "n_heads", "n_layers", "d_ff")}
    settings = Settings(len(vocabulary), len(vocabulary), dropout=0.0, max_len=32, **sizes)
    recipe = Recipe(
        RECIPE["epochs"],
        batch_size=RECIPE["batch"],
        rate=RECIPE["rate"],
        warmup=RECIPE["warmup"],
        label_smoothing=0.0,
        seed=seed,
    )
    torch.manual_seed(seed)
    learner = MODELS[model](settings)
    learner.source_embedding = learner.target_embedding  # one table of words in both models
    history = train(learner, pairs, recipe, progress=False)
    right = {}
    for kind, names_tested in {"known": known, "rare": rare, "new": new}.items():
        tested = reports.draw(RECIPE["test reports"], dict.fromkeys(names_tested, 1), seed + 100)
        source = pad([ids(report, report.source) for report in tested]).values
        count = 0
        for report, answer in zip(tested, greedy(learner, source, max_len=14), strict=True):
            own = ExtendedVocabulary(vocabulary, report.source)
            count += tuple(own.decode(answer.tokens)) == report.summary
        right[kind] = round(count / len(tested), 3)
    return {"loss": [round(record["loss"], 3) for record in history], "right": right}


def main():
    """Make the runs that are missing from the file."""
    wanted = [
        {"model": model, "names_in_training": among, "seed": seed}
        for (model, among), seed in itertools.product(settings(), SEEDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=one_run)


def settings():
    """Return the pairs of a model and its names; without copying, all of them are learned from."""
    return [("without", NAMES[0]), ("copying", NAMES[0]), ("copying", NAMES[1])]


if __name__ == "__main__":
    main()
