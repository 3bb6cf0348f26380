"""Train translators of number words, then give them longer numbers, by position method.

    python experiments/longer_numbers.py

writes `transformer_lit/data/curves/longer_numbers.json`, which chapter 12 draws. Each run is saved
as soon as it is done, and a run that is in the file already is not made again: to go on after a
stop, give the same command; to start anew, delete the file.
"""

import itertools
from pathlib import Path

import torch

from saved_runs import make_missing, some
from transformer_lit.data.number_words import in_words, numbers
from transformer_lit.encoder_decoder import (
    BEGIN,
    BEGIN_ID,
    STOP,
    STOP_ID,
    EncoderDecoder,
    Settings,
    target_vocabulary,
)
from transformer_lit.relative_positions import RoPE, Shaw
from transformer_lit.training import Recipe, batch, teacher_forcing, train
from transformer_lit.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "longer_numbers.json"
LOG = ROOT / "runs" / "longer_numbers.log"

SEEDS = (0, 1, 2)
RECIPE = {
    "task": "German number words into English ones",
    "longest in training": 8,  # German pieces
    "training numbers": "all of 1 to 3 digits, 3,000 of each of 4, 5 and 6",
    "test numbers": "up to 200 for each number of German pieces",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "max_len": 32,
    "dropout": 0.0,
    "batch": 64,
    "epochs": 6,
    "rate": 0.002,
    "warmup": 60,
    "label smoothing": 0.1,
}
D_HEAD = RECIPE["d_model"] // RECIPE["n_heads"]
METHODS = {
    "sinusoids": None,
    "RoPE": lambda: RoPE(d_head=D_HEAD, layout="interleaved"),
    "Shaw, clip 4": lambda: Shaw(d_head=D_HEAD, clip=4, values=False),
}


def drawn(part, digits, fits, count):
    """Draw ``count`` numbers of so many digits whose count of German pieces fits."""
    found = numbers(part, 10 ** (digits - 1), 10**digits)
    fitting = (n for n in some(found, len(found)) if fits(len(in_words(n, "german"))))
    return list(itertools.islice(fitting, count))


def data(per_length=3_000, tests=200):
    """Return the vocabularies, the training pairs, and the pairs to test by pieces."""
    longest = RECIPE["longest in training"]
    known = [*range(1, 100), 100, 1000]
    german = Vocabulary(sorted({piece for n in known for piece in in_words(n, "german")}))
    english = target_vocabulary(
        sorted({piece for n in [*known, 101] for piece in in_words(n, "english")})
    )

    def pair(number):
        answer = [BEGIN, *in_words(number, "english"), STOP]
        return german.encode(in_words(number, "german")), english.encode(answer)

    train_on = [
        pair(number)
        for digits in range(1, 7)
        for number in drawn("train", digits, lambda pieces: pieces <= longest, per_length)
    ]
    by_pieces = {}
    for digits in range(1, 7):
        for number in drawn("test", digits, lambda pieces: True, 10 * tests):
            source, target = pair(number)
            by_pieces.setdefault(len(source), []).append((source, target))
    few = {pieces: some(by_pieces[pieces], tests) for pieces in sorted(by_pieces)}
    return german, english, train_on, few


@torch.no_grad()
def exact(model, pairs):
    """The share of numbers that the model writes without an error, each word by itself."""
    model.eval()
    source, target = batch(pairs, model)
    state, tokens, written = model.start(source), torch.full((len(pairs),), BEGIN_ID), []
    stopped = torch.zeros(len(pairs), dtype=torch.bool)
    for _ in range(target.shape[1] - 1):
        tokens = model.step(tokens, state).argmax(-1).masked_fill(stopped, 0)
        stopped |= tokens == STOP_ID
        written.append(tokens)
    return float((torch.stack(written, dim=1) == target[:, 1:]).all(1).float().mean())


@torch.no_grad()
def words_right(model, pairs):
    """The share of right words when all those before are given."""
    model.eval()
    source, target = batch(pairs, model)
    shown, labels = teacher_forcing(target)
    right = model(source, shown).argmax(-1) == labels
    return float(right[labels > 0].float().mean())


@torch.no_grad()
def crossing(model, pairs):
    """The share of *a und b* of which word one looks hardest at piece three, and two at one.

    The weights are those of the last cross-attention, the mean of its heads.
    """
    model.eval()
    source, target = batch(pairs, model)
    hardest = model.attention(source, target[:, :-1])[-1].mean(1).argmax(-1)
    return float(((hardest[:, 0] == 2) & (hardest[:, 1] == 0)).float().mean())


def one_run(method, seed, sets, *, epochs=RECIPE["epochs"]):
    """Train one model, and return both scores for each number of German pieces."""
    german, english, pairs, tests = sets
    torch.manual_seed(seed)
    sizes = {key: RECIPE[key] for key in ("d_model", "n_heads", "n_layers", "d_ff", "max_len")}
    settings = Settings(len(german), len(english), dropout=RECIPE["dropout"], **sizes)
    model = EncoderDecoder(settings, position=METHODS[method])
    recipe = Recipe(
        epochs=epochs,
        batch_size=RECIPE["batch"],
        rate=RECIPE["rate"],
        warmup=RECIPE["warmup"],
        label_smoothing=RECIPE["label smoothing"],
        seed=seed,
    )
    train(model, pairs, recipe, progress=False)
    of_three = [pair for pair in tests[3] if len(pair[1]) == 4]  # zwei und vierzig, forty two
    return {
        "crossing": round(crossing(model, of_three), 3),
        "exact": [round(exact(model, part), 3) for part in tests.values()],
        "words right": [round(words_right(model, part), 3) for part in tests.values()],
    }


def main():
    """Make the runs that are missing from the file."""
    sets = data()
    wanted = [
        {"method": method, "seed": seed} for seed, method in itertools.product(SEEDS, METHODS)
    ]

    def run(method, seed):
        return one_run(method, seed, sets)

    pieces = {"pieces": list(sets[-1]), "numbers": [len(part) for part in sets[-1].values()]}
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run, **pieces)


if __name__ == "__main__":
    main()
