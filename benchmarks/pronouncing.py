"""Time how many words a second the pronouncer reads aloud, in batches.

    python benchmarks/pronouncing.py

The words are the first of the test part of the dictionary, in its order: short and long ones share
a batch, as in any list of words.
"""

import time

from measure import arguments, report, spread
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data.pronunciations import load

BATCH = 64
N_BEAMS = (1, 5)


def main():
    """Measure, print the table and save it."""
    given = arguments("Time how many words a second the pronouncer reads.", rounds=15)
    pronouncer = load_pronouncer()
    n_batches = given.rounds + 1
    words = list(dict.fromkeys(entry.word for entry in load("test")))
    size = 4 if given.tiny else BATCH
    batches = [words[i * size : (i + 1) * size] for i in range(n_batches)]
    if len(batches[-1]) < size:
        raise SystemExit(f"there are words for {len(words) // size - 1} rounds at most")
    speeds = {n_beams: [] for n_beams in N_BEAMS}
    for batch in batches:
        for n_beams, measured in speeds.items():
            start = time.perf_counter()
            pronouncer.pronounce(batch, n_beams=n_beams)
            measured.append(size / (time.perf_counter() - start))
    rows = [
        {
            "decoding": "greedy" if n_beams == 1 else f"beam of {n_beams}",
            "words a second": spread(measured[1:]),  # the first batch warms up
        }
        for n_beams, measured in speeds.items()
    ]
    report(given, "pronouncing", rows, sizes={"batch": size})


if __name__ == "__main__":
    main()
