"""Write down where each head of the pronouncer's cross-attention looks, for 200 words.

    python experiments/heads_of_the_pronouncer.py

writes `transformer_lit/explorables/heads.json`, which the explorable of chapter 11 shows. The words
are drawn from the test part, the same ones every time. Give the command again when the checkpoint
has changed.
"""

import base64
import json
import sys
import zlib

import torch

from saved_runs import some, write_whole
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import pronunciations
from transformer_lit.encoder_decoder import BEGIN_ID
from transformer_lit.explorables.heads import TABLE

N_WORDS = 200
SHORTEST, LONGEST = 4, 10


def draw():
    """Draw words of 4 to 10 letters from the test part; return their entries, sorted."""
    fits = [
        entry
        for entry in pronunciations.load("test")
        if SHORTEST <= len(entry.word) <= LONGEST and entry.word.isalpha()
    ]
    return sorted(some(fits, N_WORDS))


def percents(pronouncer, word, said):
    """Return the weights of all layers and heads in percent, ``(layers, heads, sounds, letters)``.

    The pronouncer is given what it has said: row by row, the weights are those with which it chose
    each phoneme and the stop token.
    """
    target = torch.cat([torch.tensor([BEGIN_ID]), said.tokens])[None]
    with torch.no_grad():
        weights = pronouncer.model.attention(pronouncer.encode([word]), target)
    return (100 * torch.stack(weights)[:, 0]).round().to(torch.uint8)


def table(pronouncer, entries):
    """Return what the file holds: words, what is said of them, what is listed, and the weights."""
    words, numbers = [], []
    spoken = pronouncer.pronounce([entry.word for entry in entries])
    for entry, said in zip(entries, spoken, strict=True):
        if not said.stopped:
            raise ValueError(f"{entry.word!r}: the pronouncer did not stop")
        sounds = pronouncer.phonemes.decode(said.tokens)
        right = tuple(sounds) in entry.pronunciations
        listed = "" if right else " ".join(entry.pronunciations[0])
        words.append([entry.word, " ".join(sounds), listed])
        numbers.append(percents(pronouncer, entry.word, said).numpy().tobytes())
    settings = pronouncer.model.settings
    return {
        "checkpoint": pronouncer.about["sha256"],
        "layers": settings.n_layers,
        "heads": settings.n_heads,
        "words": words,
        "percents": base64.b64encode(zlib.compress(b"".join(numbers), 9)).decode(),
    }


def main():
    """Write the file."""
    found = table(load_pronouncer(), draw())
    content = json.dumps(found, separators=(",", ":")).replace("],[", "],\n[").encode() + b"\n"
    write_whole(TABLE, content)
    print(f"{len(found['words'])} words, {len(content):,} bytes")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
