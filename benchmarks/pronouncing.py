"""Time how many words a second the pronouncer reads aloud, in batches.

    python benchmarks/pronouncing.py

The words are the first of the test part of the dictionary, in its order: short and long ones share
a batch, as in any list of words.
"""

import time

from measure import arguments, versions
from transformer_lit.checkpoints import load_pronouncer
from transformer_lit.data.pronunciations import load

BATCH = 64
N_BEAMS = (1, 5)


def main():
    """Measure, and print the table."""
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
    print(f"Pronouncer, batches of {size} words; {given.rounds} rounds\n")
    print("| | words a second: median | slowest and fastest batch |\n|---|---|---|")
    for n_beams, measured in speeds.items():
        _, *counted = measured  # the first warms up
        counted.sort()
        name = "greedy" if n_beams == 1 else f"beam of {n_beams}"
        median = counted[len(counted) // 2]
        print(f"| {name} | {median:.0f} | {counted[0]:.0f} to {counted[-1]:.0f} |")
    print("\n" + versions("torch"))


if __name__ == "__main__":
    main()
