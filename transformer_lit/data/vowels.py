"""Spoken Japanese vowels: who of nine men said /ae/, from sequences of sound frames.

Each utterance is a sequence of 7 to 29 frames. A frame describes 25.6 ms of sound, the next one
starts 6.4 ms later, and both overlap; the sound was sampled at 10 kHz. Its 12 numbers are cepstral
coefficients from a linear prediction analysis (LPC) of degree 12.

Source: Kudo, Toyama and Shimbo, "Multidimensional curve classification using passing-through
regions", Pattern Recognition Letters 20, 1999, pages 1103-1111; the frame's length and shift from
the description at https://archive.ics.uci.edu/dataset/128/japanese+vowels. The copy read here comes
inside the package `sktime`, none of whose code is run.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32, Int64

from transformer_lit.data._packages import check_part, data_file

PARTS = ("train", "test")
N_SPEAKERS = 9
FRAME_MS, SHIFT_MS = 25.6, 6.4

Frames = Float32[np.ndarray, "frames 12"]


def load(part: str) -> tuple[list[Frames], Int64[np.ndarray, " utterances"]]:
    """Return the utterances of a part and their speakers, 0 to 8.

    The parts are those of the data's authors: 30 training utterances of each speaker, and 24 to 88
    test utterances, recorded at other times.

    Raises:
        ValueError: if there is no such part.
        ImportError: if sktime is not installed.
    """
    check_part(part, PARTS)
    utterances, speakers = _parse(part)
    return [frames.copy() for frames in utterances], speakers.copy()


@cache
def _parse(part: str) -> tuple[list[Frames], Int64[np.ndarray, " utterances"]]:
    name = f"JapaneseVowels_{part.upper()}.ts"
    text = data_file("sktime", "datasets", "data", "JapaneseVowels", name).read_text("utf-8")
    _, rows = text.split("@data\n")
    utterances, speakers = [], []
    for row in rows.splitlines():
        # Twelve series, one per coefficient, and the speaker.
        *series, speaker = row.split(":")
        values = [[float(value) for value in one.split(",")] for one in series]
        utterances.append(np.array(values, dtype=np.float32).T.copy())
        speakers.append(int(speaker) - 1)
    return utterances, np.array(speakers, dtype=np.int64)
