"""Which letter of a word makes which phonemes, found by expectation-maximisation.

Tagging letters needs one answer per letter; the dictionary has one per word. An **alignment** cuts
the pronunciation into as many chunks as the word has letters. A chunk is silence, written `_`, one
phoneme, or two, as for the x of *box*::

    k  n  i   g  h  t        b  o   x
    _  N  AY  _  _  T        B  AA  K+S

Where several letters spell one sound (*ph*, *ck*, *ll*, *ea*, *igh*), the first of them is to
carry it, and letters that are never said stay silent (the k of *knight*).

The model is a table P(chunk | letter). The weight of an alignment is the product of its letters'
probabilities and of two fixed factors: `LATE` to the power of the positions (from 0) at which its
phonemes are said, which prefers the first letter of a spelling, and `DOUBLE` for each chunk of two.
Expectation-maximisation raises the weight of all alignments together.

Both factors were chosen by agreement with 114 words aligned by hand (`tests/data/alignments.txt`):
89% of these words and 95% of their letters come out the same. Of 45 words drawn and aligned by hand
afterwards (`alignments_unseen.txt`), 84% do, and 95% of the letters. What differs: *-tion* comes
out as `SH AH _ N` instead of `SH _ AH N`; the sounds of *-le* fall on other letters; the c of
*match* carries its CH; *ei* and *ey* may be said by the second letter.

Papers: Damper, Marchand, Marsters and Bazin, "Aligning letters and phonemes for speech synthesis",
2004, https://www.isca-archive.org/ssw_2004/damper04_ssw.html (letters with nulls); Jiampojamarn,
Kondrak and Sherif, "Applying many-to-many alignments and hidden Markov models to letter-to-phoneme
conversion", 2007, https://aclanthology.org/N07-1047 (chunks of two). The fixed factors are ours.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from transformer_lit.data import pronunciations
from transformer_lit.data.pronunciations import LETTERS, PHONEMES

NULL = "_"
LATE, DOUBLE = 1 / 3, 1 / 50
# Silence, each phoneme, each pair of phonemes: 1 + 39 + 39 * 39 chunks.
CHUNKS = (NULL, *PHONEMES, *(f"{first}+{second}" for first in PHONEMES for second in PHONEMES))

_LETTER = {letter: i for i, letter in enumerate(LETTERS)}
_PHONEME = {phoneme: i for i, phoneme in enumerate(PHONEMES)}
_UNSEEN = 1e-9  # what aligning gives to a chunk that fitting never saw with its letter

Pair = tuple[str, Sequence[str]]
Table = Float[np.ndarray, "alphabet chunks"]


class Fit(NamedTuple):
    """P(chunk | letter), rows as in `LETTERS`, columns as in `CHUNKS`, and how it was reached."""

    table: Table
    log_likelihoods: tuple[float, ...]  # of all words, before each iteration's step


class Aligned(NamedTuple):
    """A word and its chunks, one per letter."""

    word: str
    chunks: tuple[str, ...]


class _Batch(NamedTuple):
    """Words of equal length, to be aligned together."""

    rows: list[int]  # where the words stood among all
    letters: Int[np.ndarray, "words letters"]
    ends: Int[np.ndarray, " words"]  # how many phonemes each word has
    chunks: tuple[np.ndarray, ...]  # chunks[k][w, j]: the k phonemes of word w from j on


def fit(pairs: Iterable[Pair], *, iterations: int = 15) -> Fit:
    """Fit P(chunk | letter) to words and their phonemes, from a uniform start.

    Raises:
        ValueError: if there are no words, or one cannot be aligned (see `align`) or is so long
            (about 60 letters) that the weights of its alignments underflow.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    batches = list(_batches(list(pairs)))
    if not batches:
        raise ValueError("no words to fit an alignment to")
    table = np.full((len(LETTERS), len(CHUNKS)), 1 / len(CHUNKS))
    history = []
    for _ in range(iterations):
        counts, log_likelihood = _expected_counts(table, batches)
        history.append(log_likelihood)
        totals = counts.sum(1, keepdims=True)
        # A letter that no word holds keeps its row.
        table = np.where(totals > 0, counts / np.maximum(totals, 1e-300), table)
    return Fit(table, tuple(history))


def align(pairs: Iterable[Pair], table: Table) -> list[tuple[str, ...]]:
    """Return the best alignment of each word, one chunk per letter, by Viterbi's algorithm.

    Raises:
        ValueError: if a word is empty, has a letter or phoneme that is none, or more than two
            phonemes per letter.
    """
    pairs = list(pairs)
    log_table = np.log(np.maximum(table, _UNSEEN))
    found: list[tuple[str, ...]] = [()] * len(pairs)
    for batch in _batches(pairs):
        for row, sizes in zip(batch.rows, _best_sizes(batch, log_table).tolist(), strict=True):
            found[row] = _cut(pairs[row][1], sizes)
    return found


def spoken(chunks: Iterable[str]) -> tuple[str, ...]:
    """Join chunks to the pronunciation they were cut from."""
    return tuple(sound for chunk in chunks if chunk != NULL for sound in chunk.split("+"))


def aligned(part: str) -> list[Aligned]:
    """Return the words of a part of the dictionary, first pronunciations, letter by letter.

    The table is fitted once per process, to every fifth training word. Words of more than two
    phonemes per letter (*mr*, *bbq*) are left out.

    Raises:
        ValueError: if there is no such part.
    """
    return list(_aligned(part))


@cache
def _aligned(part: str) -> tuple[Aligned, ...]:
    pairs = _first_pronunciations(part)
    words = (word for word, _ in pairs)
    return tuple(map(Aligned, words, align(pairs, _table())))


@cache
def _table() -> Table:
    return fit(_first_pronunciations("train")[::5]).table


def _first_pronunciations(part: str) -> list[Pair]:
    pairs = ((word, said[0]) for word, said in pronunciations.load(part))
    return [(word, sounds) for word, sounds in pairs if len(sounds) <= 2 * len(word)]


def _batches(pairs: list[Pair]) -> Iterator[_Batch]:
    by_length: dict[int, list[int]] = {}
    for row, (word, said) in enumerate(pairs):
        _check(word, said)
        by_length.setdefault(len(word), []).append(row)
    for _, rows in sorted(by_length.items()):
        ends = np.array([len(pairs[row][1]) for row in rows])
        sounds = np.zeros((len(rows), ends.max()), dtype=np.int64)
        for i, row in enumerate(rows):
            sounds[i, : ends[i]] = [_PHONEME[sound] for sound in pairs[row][1]]
        silence = np.zeros((len(rows), ends.max() + 1), dtype=np.int64)
        two = 1 + len(PHONEMES) * (1 + sounds[:, :-1]) + sounds[:, 1:]
        letters = np.array([[_LETTER[letter] for letter in pairs[row][0]] for row in rows])
        yield _Batch(rows, letters, ends, (silence, 1 + sounds, two))


def _check(word: str, sounds: Sequence[str]) -> None:
    if not word:
        raise ValueError(f"a word to align must have at least one letter, got {word!r}")
    for letter in word:
        if letter not in _LETTER:
            raise ValueError(f"{word!r} has {letter!r}: expected letters of {LETTERS}")
    for sound in sounds:
        if sound not in _PHONEME:
            raise ValueError(f"{word!r} has the phoneme {sound!r}: expected {' '.join(PHONEMES)}")
    if len(sounds) > 2 * len(word):
        raise ValueError(
            f"{word!r} has {len(sounds)} phonemes for {len(word)} letters: at most 2 per letter"
        )


def _expected_counts(table: Table, batches: list[_Batch]) -> tuple[Table, float]:
    """How often each letter makes each chunk, expected over all alignments; the E step."""
    counts, log_likelihood = np.zeros(table.size), 0.0
    for batch in batches:
        n_words, n_letters = batch.letters.shape
        width = batch.chunks[0].shape[1]
        last = np.arange(n_words), batch.ends
        weight = [_weights(batch, i, table) for i in range(n_letters)]

        # forward[i][w, j]: letters before i make the first j phonemes. Each is scaled to sum 1.
        forward = [np.zeros((n_words, width))]
        forward[0][:, 0] = 1
        for i in range(n_letters):
            ahead = np.zeros((n_words, width))
            for k in range(3):
                ahead[:, k:] += forward[i][:, : width - k] * weight[i][k]
            scale = ahead.sum(1, keepdims=True)
            forward.append(ahead / scale)
            log_likelihood += np.log(scale).sum()
        if not forward[-1][last].all():
            raise ValueError(f"words of {n_letters} letters are too long to fit an alignment to")
        log_likelihood += np.log(forward[-1][last]).sum()

        backward = np.zeros((n_words, width))
        backward[last] = 1
        for i in reversed(range(n_letters)):
            path = [weight[i][k] * backward[:, k:] for k in range(3)]
            share = [forward[i][:, : width - k] * path[k] for k in range(3)]
            total = sum(part.sum(1, keepdims=True) for part in share)
            for k in range(3):
                cell = batch.letters[:, i, None] * len(CHUNKS) + batch.chunks[k]
                counts += np.bincount(cell.ravel(), (share[k] / total).ravel(), table.size)
            backward = np.zeros((n_words, width))
            for k in range(3):
                backward[:, : width - k] += path[k]
            backward /= backward.sum(1, keepdims=True)
    return counts.reshape(table.shape), float(log_likelihood)


def _weights(batch: _Batch, i: int, table: Table) -> list[np.ndarray]:
    letter = batch.letters[:, i, None]
    fixed = (1, LATE**i, LATE ** (2 * i) * DOUBLE)
    return [table[letter, chunk] * fixed[k] for k, chunk in enumerate(batch.chunks)]


def _best_sizes(batch: _Batch, log_table: Table) -> Int[np.ndarray, "words letters"]:
    """How many phonemes each letter makes in the heaviest alignment."""
    n_words, n_letters = batch.letters.shape
    width = batch.chunks[0].shape[1]
    best = np.full((n_words, width), -np.inf)
    best[:, 0] = 0
    choices = []
    for i in range(n_letters):
        letter = batch.letters[:, i, None]
        fixed = np.log(LATE) * i * np.arange(3) + np.log(DOUBLE) * np.array([0, 0, 1])
        candidates = np.full((3, n_words, width), -np.inf)
        for k, chunk in enumerate(batch.chunks):
            candidates[k, :, k:] = best[:, : width - k] + log_table[letter, chunk] + fixed[k]
        choices.append(candidates.argmax(0))
        best = candidates.max(0)
    sizes = np.zeros((n_words, n_letters), dtype=np.int64)
    at = batch.ends.copy()
    for i in reversed(range(n_letters)):
        sizes[:, i] = choices[i][np.arange(n_words), at]
        at -= sizes[:, i]
    return sizes


def _cut(sounds: Sequence[str], sizes: list[int]) -> tuple[str, ...]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append("+".join(sounds[at : at + size]) or NULL)
        at += size
    return tuple(chunks)
