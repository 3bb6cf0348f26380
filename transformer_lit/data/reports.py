"""Short reports with names, and a summary of each: invented sentences with real surnames.

The surnames are those that follow Mr, Mrs, Ms or Dr in the English news of `news`. What the
sentences say is made up and says nothing about the people of these names: each name in a sentence
is drawn anew. A few sentences are said to somebody in a chat, and their "summary" is the answer.
"""

import re
from collections import Counter
from random import Random
from typing import NamedTuple

from transformer_lit.data import news

_TITLED = re.compile(r"\b(?:Mr|Mrs|Ms|Dr) ((?:Mc|Mac)?[A-Z][a-z]{2,})\b")

EVENTS = (
    ("x beat y in the final", "x beats y"),
    ("y lost to x after a long match", "x beats y"),
    ("y was no match for x", "x beats y"),
    ("x thanked y for the help", "x thanks y"),
    ("y was thanked by x", "x thanks y"),
    ("x is the new captain after y", "x replaces y"),
    ("y makes room for x as captain", "x replaces y"),
    ("x will visit y on monday", "x to visit y"),
    ("y expects x on monday", "x to visit y"),
)
FRAMES = (
    ("EVENT", "EVENT"),
    ("this morning EVENT", "EVENT"),
    ("EVENT before v arrived", "EVENT"),
    ("z says EVENT", "z : EVENT"),
    ("EVENT , z told us", "z : EVENT"),
    ("asked by v , z said that EVENT", "z : EVENT"),
)
CHAT = (
    ("hello , this is x , is y there ?", "hello x , y is out"),
    ("tell y that x is late", "thank you , y will know"),
)
PATTERNS = (
    tuple(
        (frame.replace("EVENT", event), short.replace("EVENT", summary))
        for event, summary in EVENTS
        for frame, short in FRAMES
    )
    + CHAT
)


class Report(NamedTuple):
    """The words of a report, and those of its summary."""

    source: tuple[str, ...]
    summary: tuple[str, ...]


def names() -> dict[str, int]:
    """Return the surnames, and how often the news mentions each, the most frequent first."""
    found = Counter(name for document in news.load() for name in _TITLED.findall(document))
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def draw(n: int, among: dict[str, int], seed: int) -> list[Report]:
    """Draw ``n`` reports whose names are ``among`` these, each in proportion to its number.

    The names in one report differ.

    Raises:
        ValueError: if ``n`` is negative, or there are fewer than four names.
    """
    if n < 0 or len(among) < 4:
        raise ValueError(
            "the number of reports must not be negative, and that of names at least 4, "
            f"got {n} and {len(among)}"
        )
    random, listed, counts = Random(seed), list(among), list(among.values())
    reports = []
    for _ in range(n):
        chosen: dict[str, None] = {}
        while len(chosen) < 4:
            chosen |= dict.fromkeys(random.choices(listed, counts))
        role = dict(zip("xyzv", chosen, strict=True))
        pattern = random.choice(PATTERNS)
        reports.append(
            Report(*(tuple(role.get(word, word) for word in half.split()) for half in pattern))
        )
    return reports
