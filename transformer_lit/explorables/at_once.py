"""All at once beside step by step: a search, and each place of an answer written in one pass.

Chapter: https://transformer-lit.github.io/transformer_lit/book/15-all-at-once.html

The places were computed by `experiments/places_at_once.py` and lie in `at_once.json`: for each word
the length that the model told and its probability, and a line per place with the likeliest symbols
and theirs. The script that draws them is `decoding.js`, which draws the search too.
"""

import itertools
import json
import pathlib
from collections.abc import Sequence

import traitlets

from transformer_lit.checkpoints import Pronouncer
from transformer_lit.explorables.decoding import DecodingExplorable

TABLE = pathlib.Path(__file__).with_name("at_once.json")


def judge(answer: Sequence[str], right: Sequence[Sequence[str]]) -> dict:
    """Say how an answer stands to the right ones, which are counted from 1, and mark its places.

    Returns:
        ``kind``: "right", "mixture" (of two right ones), "wrong", or "length" if no right one is
        as long; ``of``: the right ones that it is, mixes, or comes nearest to; ``marks``: for each
        place of a mixture where the two differ, which one its symbol is from, for each place where
        a wrong answer differs from the nearest "wrong", else "".
    """
    answer = list(answer)
    numbered = {i: list(one) for i, one in enumerate(right, start=1)}
    none = [""] * len(answer)
    same = {i: one for i, one in numbered.items() if len(one) == len(answer)}
    if not same:
        return {"kind": "length", "of": [], "marks": none}
    wrong = {
        i: [said != symbol for said, symbol in zip(answer, one, strict=True)]
        for i, one in same.items()
    }
    nearest = min(wrong, key=lambda i: sum(wrong[i]))
    if not any(wrong[nearest]):
        return {"kind": "right", "of": [nearest], "marks": none}
    for i, j in itertools.combinations(same, 2):
        places = list(zip(wrong[i], wrong[j], strict=True))
        if not any(not_i and not_j for not_i, not_j in places):
            marks = [str(j if a else i) if a != b else "" for a, b in places]
            return {"kind": "mixture", "of": [i, j], "marks": marks}
    marks = ["wrong" if differs else "" for differs in wrong[nearest]]
    return {"kind": "wrong", "of": [nearest], "marks": marks}


class AtOnceExplorable(DecodingExplorable):
    """The search of chapter 13 for the words of `at_once.json`, and the answers in one pass.

    Args:
        pronouncer: the model that searches.
        word: the one that is shown, by default the first.
        n_beams: 1, 2 or 5.
        step: how many steps of the search are shown, cut to those there are.

    Raises:
        traitlets.TraitError: if ``word`` is not among the words, ``n_beams`` is not 1, 2 or 5, or
            ``step`` is below 1.
    """

    # For each word: length, prob, places (text: a line per place), kind, of, marks (see judge).
    at_once = traitlets.Dict().tag(sync=True)

    def __init__(
        self, pronouncer: Pronouncer, *, word: str | None = None, n_beams: int = 1, step: int = 1
    ):
        said = json.loads(TABLE.read_text("utf-8"))["words"]
        super().__init__(pronouncer, list(said), word=word, n_beams=n_beams, step=step)
        self.at_once = {known: one | self._judged(known, one) for known, one in said.items()}

    def _judged(self, word: str, said: dict) -> dict:
        answer = [line.split(" ")[0] for line in said["places"].split("\n")]
        return judge(answer, [right.split(" ") for right in self.listed[word]])
