"""Write down what a model that writes all at once says to some words, place by place.

    python experiments/places_at_once.py

writes `transformer_lit/explorables/at_once.json`, which the explorable of chapter 15 shows. The
model is that of one run of `all_at_once.py`, trained anew: it is not stored. The words are of the
test part: some regular ones, some with two answers that can be mixed, and some that the model did
mix.
"""

import json
from hashlib import sha256

import torch
from safetensors.torch import save
from torch.nn.attention import SDPBackend, sdpa_kernel

import all_at_once
from saved_runs import write_whole
from transformer_lit.data.pronunciations import load
from transformer_lit.encoder_decoder import BEGIN_ID, STOP_ID
from transformer_lit.explorables.at_once import TABLE
from transformer_lit.non_autoregressive import is_mixture, mask_predict
from transformer_lit.training import weights

RUN = {"writes": "all at once", "targets": "dictionary", "seed": 0}
SHORTEST, LONGEST = 4, 10  # letters
EVERY, EVERY_MIXABLE, N_MIXED = 1_500, 13, 5
SHOWN = 5  # symbols of each place
letters, phonemes = all_at_once.letters, all_at_once.phonemes


def choose(model):
    """Choose words of 4 to 10 letters from the test part, sorted.

    Each 1,500th; of those with answers that can be mixed, each 13th; and the first five of which
    the model's answer is a mixture.
    """
    fits = [entry for entry in load("test") if SHORTEST <= len(entry.word) <= LONGEST]
    mixable = [entry for entry in fits if all_at_once.can_mix(entry)]
    answers = all_at_once.written(lambda source: mask_predict(model, source), mixable)
    mixed = [
        entry
        for entry, answer in zip(mixable, answers, strict=True)
        if is_mixture(answer, entry.pronunciations)
    ]
    chosen = {*fits[::EVERY], *mixable[::EVERY_MIXABLE], *mixed[:N_MIXED]}
    return sorted(entry.word for entry in chosen)


@torch.no_grad()
def places(model, word):
    """Return the length that is told and its probability, and the likeliest symbols of each place.

    Probabilities are those that `mask_predict` compares: of lengths above 0, of phonemes.
    """
    source = letters.encode(word)[None]
    n = len(mask_predict(model, source)[0])
    memory = model.encode(source)
    lengths = model.length_logits(*memory)[0, 1:].softmax(-1)
    begins = torch.full((1, n), BEGIN_ID)
    logits = model.fill(begins, *memory, torch.tensor([n]))[0, :, STOP_ID + 1 :]
    best = logits.softmax(-1).topk(SHOWN)
    lines = [
        ",".join(
            f"{phonemes.symbols[symbol + STOP_ID + 1]} {prob:.4f}"
            for prob, symbol in zip(*row, strict=True)
        )
        for row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return {"length": n, "prob": round(float(lengths[n - 1]), 4), "places": "\n".join(lines)}


def table(model, losses, words):
    """Return what the file holds: how the model was made, and what it says to each word."""
    return {
        "recipe": all_at_once.RECIPE,
        **RUN,
        "loss": losses,
        "sha256": sha256(save(weights(model))).hexdigest(),
        "words": {word: places(model, word) for word in words},
    }


def main():
    """Train the model and write the file."""
    with sdpa_kernel(SDPBackend.MATH):  # as in the runs that chapter 15 draws
        model, made = all_at_once.trained(**RUN, words=all_at_once.draw())
    found = table(model, made["loss"], choose(model))
    content = json.dumps(found, indent=1).encode() + b"\n"
    write_whole(TABLE, content)
    print(f"{len(found['words'])} words, {len(content):,} bytes")


if __name__ == "__main__":
    main()
