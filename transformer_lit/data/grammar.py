"""Sentences of ambiguous English words, from a weighted grammar, with exact tags and trees.

In "i saw a saw" the same word is a verb and then a noun. Ten of the 16 words here have two or three
tags, yet each whole sentence has only one sequence of tags: nouns never stand without a determiner,
which rules out the second reading of "they can fish". All words are in lower case.

The grammar has no recursion, so it makes a finite number of sentences, and whatever is said about
it can be computed exactly. The tags are a part of the universal set (de Marneffe et al., "Universal
Dependencies", 2021, https://aclanthology.org/2021.cl-2.11), except that the possessive *her* counts
as a determiner here, as in the Penn Treebank's PRP$ (Marcus, Santorini and Marcinkiewicz,
"Building a large annotated corpus of English", 1993, https://aclanthology.org/J93-2004).
"""

from collections import defaultdict
from functools import cache
from random import Random
from typing import NamedTuple

TAGS = ("ADJ", "ADP", "AUX", "DET", "NOUN", "PRON", "VERB")

# What a phrase may consist of, with weights. What follows a colon tells apart phrases of the same
# label; trees and tags leave it out.
PHRASES: dict[str, dict[tuple[str, ...], int]] = {
    "S": {("NP:we", "VP:we"): 6, ("NP:it", "VP:it"): 4},
    "NP:we": {("PRON:subject",): 1},
    "NP:it": {("DET", "NOUN"): 3, ("DET", "ADJ", "NOUN"): 2},
    "NP:object": {("PRON:object",): 1, ("DET", "NOUN"): 5, ("DET", "ADJ", "NOUN"): 2},
    "VP:we": {
        ("VERB:alone",): 1,
        ("VERB:alone", "PP"): 1,
        ("VERB:with", "NP:object"): 4,
        ("VERB:past", "NP:object"): 3,
        ("AUX", "VERB:alone"): 2,
        ("AUX", "VERB:alone", "PP"): 1,
        ("AUX", "VERB:with", "NP:object"): 4,
    },
    "VP:it": {
        ("VERB:past", "NP:object"): 2,
        ("AUX", "VERB:alone"): 2,
        ("AUX", "VERB:alone", "PP"): 1,
        ("AUX", "VERB:with", "NP:object"): 4,
    },
    "PP": {("ADP", "NP:object"): 1},
}
WORDS: dict[str, dict[str, int]] = {
    "PRON:subject": {"i": 3, "you": 1, "we": 2, "they": 2},
    "PRON:object": {"her": 3, "you": 1},
    "DET": {"the": 3, "a": 3, "her": 2},
    "ADJ": {"light": 1},
    "NOUN": dict.fromkeys(("saw", "can", "duck", "fish", "watch", "light", "play", "will"), 1),
    "AUX": {"can": 2, "will": 1},
    "ADP": {"like": 1},
    "VERB:alone": dict.fromkeys(("duck", "fish", "play", "watch"), 1),
    "VERB:with": dict.fromkeys(("can", "watch", "light", "play", "like"), 1),
    "VERB:past": {"saw": 1},
}

Tree = tuple  # (label, tree, tree, ...) for a phrase, (tag, word) for a word


class Sentence(NamedTuple):
    """Words, the tag of each, and the tree above them."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    tree: Tree


def sample(n: int, seed: int) -> list[Sentence]:
    """Draw `n` sentences, each by its probability; the same ones for the same seed.

    Raises:
        ValueError: if `n` is negative.
    """
    if n < 0:
        raise ValueError(f"the number of sentences must not be negative, got {n}")
    random = Random(seed)
    return [_sentence(_draw("S", random)) for _ in range(n)]


@cache
def language() -> tuple[tuple[Sentence, float], ...]:
    """Return every sentence of the grammar with its probability."""
    return tuple((_sentence(tree), p) for tree, p in _trees("S"))


def bracketed(tree: Tree) -> str:
    """Write a tree on a line: `(S (NP (PRON i)) (VP (VERB saw) (NP (DET a) (NOUN saw))))`."""
    label, *rest = tree
    return f"({label} {' '.join(p if isinstance(p, str) else bracketed(p) for p in rest)})"


def per_word_ceiling() -> float:
    """Return the best accuracy of any tagger that gives a word the same tag everywhere.

    The best such tagger gives each word its most frequent tag, so the share of words it gets right
    is, over words w and tags t, with expectations over sentences,

        sum_w max_t E[how often w has tag t] / E[length].

    The expectations come from the grammar's rules; no sentence is drawn or listed.
    """
    counts = _expected("S")
    best: dict[str, float] = defaultdict(float)
    for (word, _), expected in counts.items():
        best[word] = max(best[word], expected)
    return sum(best.values()) / sum(counts.values())


def window_ceiling(width: int) -> float:
    """Return the best accuracy of any tagger that sees a word and `width` words on either side.

    It is the same sum as for `per_word_ceiling` with windows in place of words, over the whole
    language; a place beyond the sentence's ends is seen as empty.

    Raises:
        ValueError: if `width` is negative.
    """
    if width < 0:
        raise ValueError(f"width must not be negative, got {width}")
    counts: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sentence, p in language():
        padded = ("",) * width + sentence.words + ("",) * width
        for i, tag in enumerate(sentence.tags):
            counts[padded[i : i + 2 * width + 1]][tag] += p
    best = sum(max(tags.values()) for tags in counts.values())
    return best / sum(sum(tags.values()) for tags in counts.values())


def _label(symbol: str) -> str:
    return symbol.split(":")[0]


def _draw(symbol: str, random: Random) -> Tree:
    choices = WORDS.get(symbol) or PHRASES[symbol]
    (choice,) = random.choices(list(choices), list(choices.values()))
    if isinstance(choice, str):
        return (_label(symbol), choice)
    return (_label(symbol), *(_draw(part, random) for part in choice))


def _trees(symbol: str) -> list[tuple[Tree, float]]:
    label, found = _label(symbol), []
    if symbol in WORDS:
        total = sum(WORDS[symbol].values())
        return [((label, word), weight / total) for word, weight in WORDS[symbol].items()]
    total = sum(PHRASES[symbol].values())
    for parts, weight in PHRASES[symbol].items():
        partial: list[tuple[Tree, float]] = [((label,), weight / total)]
        for part in parts:
            ends = _trees(part)
            partial = [((*tree, end), p * q) for tree, p in partial for end, q in ends]
        found += partial
    return found


def _sentence(tree: Tree) -> Sentence:
    words, tags, todo = [], [], [tree]
    while todo:
        label, *parts = todo.pop()
        if isinstance(parts[0], str):
            words.append(parts[0])
            tags.append(label)
        else:
            todo += reversed(parts)
    return Sentence(tuple(words), tuple(tags), tree)


@cache
def _expected(symbol: str) -> dict[tuple[str, str], float]:
    """How often each word has each tag below a symbol, expected."""
    counts: dict[tuple[str, str], float] = defaultdict(float)
    if symbol in WORDS:
        total = sum(WORDS[symbol].values())
        for word, weight in WORDS[symbol].items():
            counts[word, _label(symbol)] += weight / total
        return counts
    total = sum(PHRASES[symbol].values())
    for parts, weight in PHRASES[symbol].items():
        for part in parts:
            for key, expected in _expected(part).items():
                counts[key] += expected * weight / total
    return counts
