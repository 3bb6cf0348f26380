"""Train small pronouncers that write one symbol after the other, and some that write all at once.

    python experiments/all_at_once.py

writes `transformer_lit/data/curves/all_at_once.json`, which chapter 15 draws. All models have the
same sizes, the same words in the same number of steps. Targets are the dictionary's, or distilled:
what the pronouncer of chapter 13 answers to the same words. Each run is saved as soon as it is
done, and a run that is in the file already is not made again: to go on after a stop, give the same
command; to start anew, delete the file.
"""

import itertools
import logging
from functools import cache
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from saved_runs import make_missing, some, to_train
from transformer_lit.checkpoints import load_pronouncer, vocabularies
from transformer_lit.data.pronunciations import load
from transformer_lit.decoding import error_rates, greedy
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings
from transformer_lit.masking import causal_mask
from transformer_lit.non_autoregressive import (
    NonAutoregressive,
    cut_at_stop,
    is_mixture,
    mask_predict,
    with_length,
)
from transformer_lit.training import train
from transformer_lit.vocabulary import pad

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "all_at_once.json"
LOG = ROOT / "runs" / "all_at_once.log"

SEEDS = (0, 1, 2)
KINDS = (  # how a model writes, and what it is taught
    ("one by one", "dictionary"),
    ("all at once", "dictionary"),
    ("all at once, causal mask", "dictionary"),
    ("all at once", "distilled"),
    ("one by one", "distilled"),
)
PASSES = (1, 2, 3, 4, 6, 8)
RECIPE = {
    "task": "the phonemes of an English word from its letters",
    "training words": 30_000,
    "validation words": 2_000,
    "d_model": 128,
    "n_heads": 4,
    "n_layers": 2,
    "d_ff": 256,
    "dropout": 0.0,
    "epochs": 5,
    "batch": 64,
    "rate": 0.002,
    "warmup": 300,
    "label smoothing": 0.1,
    "spare places": 2,
}
letters, phonemes = vocabularies()


class Causal(NonAutoregressive):
    """As the class it comes from, but no place sees those behind it."""

    def may_see(self, visible, seq):
        """Let each place see itself and those before it."""
        return super().may_see(visible, seq) & causal_mask(seq).to(visible.device)


def can_mix(entry):
    """Tell whether two pronunciations are equally long and differ at two places or more."""
    return any(
        len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) > 1
        for a, b in itertools.combinations(entry.pronunciations, 2)
    )


def draw():
    """Draw the words: to train on, to score, and those with answers that can be mixed.

    All words of the training part whose answers can be mixed are among those trained on.
    """
    training, validation = load("train"), load("validation")
    seen = [entry for entry in training if can_mix(entry)]
    others = [entry for entry in training if not can_mix(entry)]
    unseen = [entry for entry in validation + load("test") if can_mix(entry)]
    return {
        "training": seen + some(others, RECIPE["training words"] - len(seen)),
        "validation": some(validation, RECIPE["validation words"]),
        "two answers, trained on": seen,
        "two answers, held out": unseen,
    }


def pairs(entries):
    """Each word with each of its pronunciations."""
    return [
        (letters.encode(entry.word), phonemes.encode([BEGIN, *sounds, STOP]))
        for entry in entries
        for sounds in entry.pronunciations
    ]


@cache
def taught(words):
    """What the pronouncer answers to each of these words, and the digest of its weights."""
    teacher = load_pronouncer()
    answers = teacher.pronounce(words)
    return [phonemes.decode(answer.tokens) for answer in answers], teacher.about["sha256"]


def distilled(entries):
    """The same pairs, each target replaced by the pronouncer's answer; how many, and the digest.

    An answer that did not come to its end is no target: such a word keeps its own.
    """
    answers, digest = taught(tuple(entry.word for entry in entries))
    ended = [len(answer) < len(phonemes) for answer in answers]  # as long as can be told
    replaced = [
        entry._replace(pronunciations=(tuple(answer),) * len(entry.pronunciations))
        for entry, answer in zip(entries, answers, strict=True)
    ]
    chosen = [new if end else old for old, new, end in zip(entries, replaced, ended, strict=True)]
    return pairs(chosen), {"teacher": digest, "answers without end": ended.count(False)}


def written(write, entries):
    """What ``write(source)`` makes of the words, as phonemes."""
    order = sorted(range(len(entries)), key=lambda i: len(entries[i].word))
    answers = {}
    for start in range(0, len(order), 250):
        rows = order[start : start + 250]
        source = pad([letters.encode(entries[i].word) for i in rows]).values
        answers |= zip(rows, (phonemes.decode(tokens) for tokens in write(source)), strict=True)
    return [answers[i] for i in range(len(entries))]


def counted(answers, entries):
    """How many of these answers are right, how many a mixture of two right ones."""
    references = [entry.pronunciations for entry in entries]
    both = list(zip(answers, references, strict=True))
    return {
        "words": len(entries),
        "right": sum(tuple(answer) in right for answer, right in both),
        "mixtures": sum(is_mixture(answer, right) for answer, right in both),
    }


def scored(write, words):
    """Error rates on validation words, and the counts on words with two answers."""
    validation = words["validation"]
    wrong, symbols = error_rates(
        written(write, validation), [entry.pronunciations for entry in validation]
    )
    return {
        "word error rate": round(wrong, 4),
        "phoneme error rate": round(symbols, 4),
        **{
            name: counted(written(write, words[name]), words[name])
            for name in ("two answers, trained on", "two answers, held out")
        },
    }


def told_lengths(model, n_passes, words):
    """The word error rate on validation words, given the length of the first pronunciation."""
    validation = sorted(words["validation"], key=lambda entry: len(entry.word))
    wanted = iter([len(entry.pronunciations[0]) for entry in validation])

    def write(source):
        lengths = torch.tensor(list(itertools.islice(wanted, len(source))))
        return mask_predict(model, source, n_passes=n_passes, lengths=lengths)

    return error_rates(written(write, validation), [e.pronunciations for e in validation])[0]


def lengths_right(model, entries):
    """The share of words whose predicted length is that of one of their pronunciations."""
    told = written(lambda source: mask_predict(model, source), entries)
    lengths = [{len(sounds) for sounds in entry.pronunciations} for entry in entries]
    return sum(len(t) in right for t, right in zip(told, lengths, strict=True)) / len(entries)


def examples(model, entries, count=12):
    """The first mixtures that one pass makes, beside the pronunciations."""
    answers = written(lambda source: mask_predict(model, source), entries)
    found = [
        {"word": e.word, "answer": " ".join(a), "right": [" ".join(p) for p in e.pronunciations]}
        for a, e in zip(answers, entries, strict=True)
        if is_mixture(a, e.pronunciations)
    ]
    return found[:count]


def trained(writes, targets, seed, words):
    """Train one model; return it, its losses, and what is to be known of its targets."""
    more = {}
    if targets == "distilled":
        data, more = distilled(words["training"])
    else:
        data = pairs(words["training"])
    recipe = to_train(RECIPE, seed)
    sizes = {name: RECIPE[name] for name in ("d_model", "n_heads", "n_layers", "d_ff", "dropout")}
    settings = Settings(source_size=len(letters), target_size=len(phonemes), max_len=48, **sizes)
    torch.manual_seed(seed)
    if writes == "one by one":
        model = EncoderDecoder(settings)
    else:
        kind = Causal if "causal" in writes else NonAutoregressive
        model = kind(settings, spare=RECIPE["spare places"])
        data = [(source, with_length(target)) for source, target in data]
    history = train(
        model,
        data,
        recipe,
        after_epoch=lambda _, record: logging.info("%s %s %s %s", writes, targets, seed, record),
        progress=False,
    )
    return model.eval(), {"loss": [round(record["loss"], 3) for record in history], **more}


def one_run(writes, targets, seed, words):
    """Train one model, and return how it does on words it has not seen."""
    model, made = trained(writes, targets, seed, words)
    if writes == "one by one":

        def one_by_one(source):
            return [found.tokens for found in greedy(model, source, max_len=48)]

        return made | {"one by one": scored(one_by_one, words)}
    for n_passes in PASSES:
        made[f"passes {n_passes}"] = scored(
            lambda source, n=n_passes: mask_predict(model, source, n_passes=n), words
        )
        made[f"passes {n_passes}, told the length"] = round(told_lengths(model, n_passes, words), 4)
    return made | {
        "cut at stop": scored(lambda source: cut_at_stop(model, source), words),
        "lengths right": round(lengths_right(model, words["validation"]), 4),
        "examples": examples(model, words["two answers, held out"]),
    }


def main():
    """Make the runs that are missing from the file."""
    words = draw()

    def run(**settings):
        with sdpa_kernel(SDPBackend.MATH):  # words are so short that the fused kernel is slower
            return one_run(**settings, words=words)

    wanted = [
        {"writes": writes, "targets": targets, "seed": seed}
        for seed, (writes, targets) in itertools.product(SEEDS, KINDS)
    ]
    make_missing(RESULT, LOG, recipe=RECIPE, wanted=wanted, run=run)


if __name__ == "__main__":
    main()
