"""Heads against words: where each head of the trained pronouncer looks while it says a word.

Chapter: https://transformer-lit.github.io/transformer_lit/book/11-encoder-and-decoder.html

The weights were computed by `experiments/heads_of_the_pronouncer.py` and lie in `heads.json`: for
each word, decoder layer and head a table of percents, as they are rounded, one row per phoneme and
one for the stop token, one column per letter. They are saved with the figure, so that it needs
neither the model nor a kernel.
"""

import base64
import json
import pathlib
import zlib

import torch
import traitlets

from transformer_lit.explorables import Explorable

TABLE = pathlib.Path(__file__).with_name("heads.json")


class HeadsExplorable(Explorable):
    """The cross-attention of one head for one of 200 words of the test part.

    Args:
        word: one of the words.
        layer: the decoder block, counted from 0.
        head: the head in it, counted from 0.

    Raises:
        traitlets.TraitError: if there is no such word, layer or head.
    """

    table = traitlets.Dict().tag(sync=True)  # what heads.json holds
    word = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int().tag(sync=True)
    head = traitlets.Int().tag(sync=True)

    def __init__(self, word, *, layer=0, head=0):
        table = json.loads(TABLE.read_text("utf-8"))
        if word not in [known for known, *_ in table["words"]]:
            raise traitlets.TraitError(f"{word!r} is not one of the {len(table['words'])} words")
        for name, value in (("layer", layer), ("head", head)):
            count = table[f"{name}s"]
            if not 0 <= value < count:
                raise traitlets.TraitError(f"{name} must lie in 0 .. {count - 1}, got {value}")
        super().__init__(table=table, word=word, layer=layer, head=head)

    def percents(self) -> torch.Tensor:
        """Look up what the picture shows: whole percents, ``(sounds + 1, letters)``."""
        numbers = zlib.decompress(base64.b64decode(self.table["percents"]))
        per_word, start = self.table["layers"] * self.table["heads"], 0
        for word, said, _ in self.table["words"]:
            rows, columns = len(said.split()) + 1, len(word)
            if word == self.word:
                break
            start += per_word * rows * columns
        start += (self.layer * self.table["heads"] + self.head) * rows * columns
        found = numbers[start : start + rows * columns]
        return torch.tensor(list(found)).reshape(rows, columns)
