"""Score the trained pronouncer on all test words, beside Phonetisaurus.

    python experiments/score_pronouncer.py

prints the shares of wrong words and wrong phonemes, without stress marks, any pronunciation listed
counted as right. The exit status is 1 unless both ways to write beat Phonetisaurus by words.
"""

import sys

from train_pronouncer import scores
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data import curves
from transformer_lit.data.pronunciations import load


def table(pronouncer, entries):
    """Name, share of wrong words, share of wrong phonemes; those of Phonetisaurus from its file."""
    other = curves.load("phonetisaurus")
    return [
        ("greedy", *scores(pronouncer, entries)),
        ("beam of 5", *scores(pronouncer, entries, n_beams=5)),
        ("Phonetisaurus, 8-gram", other["word error rate"], other["phoneme error rate"]),
    ]


def main():
    """Print the table; return the exit status."""
    entries = load("test")
    rows = table(load_pronouncer(), entries)
    print(f"{len(entries):,} test words{'':<13}words wrong  phonemes wrong")
    for name, words, phonemes in rows:
        print(f"{name:<30} {words:>9.2%} {phonemes:>14.2%}".replace("%", " %"))
    *ours, other = [words for _, words, _ in rows]
    return 0 if max(ours) < other else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        sys.exit(str(error))
