"""Handwritten digits, 1,797 images of 8 x 8 pixels.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", 1998, the test part,
https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits. The copy read here
comes inside the package `scikit-learn`, none of whose code is run.
"""

import gzip
from functools import cache

import numpy as np
from jaxtyping import Float32, Int64

from transformer_lit.data._packages import check_part, data_file

PARTS = ("train", "validation", "test")
SIZE = 8
_N_HELD_OUT = 250  # images in each of validation and test


def load(
    part: str,
) -> tuple[Float32[np.ndarray, "images 8 8"], Int64[np.ndarray, " images"]]:
    """Return the images of a part, white 0 to black 1, and the digits they show.

    Of the images, 1,297 train, 250 validate and 250 test, drawn once and always the same.

    Raises:
        ValueError: if there is no such part.
        ImportError: if scikit-learn is not installed.
    """
    check_part(part, PARTS)
    table = _table()
    # The stream of RandomState, unlike that of default_rng, never changes between releases.
    order = np.random.RandomState(0).permutation(len(table))
    test, validation, train = np.split(order, [_N_HELD_OUT, 2 * _N_HELD_OUT])
    rows = table[{"train": train, "validation": validation, "test": test}[part]]
    images = rows[:, :-1].reshape(-1, SIZE, SIZE) / 16  # grey values go from 0 to 16
    return images.astype(np.float32), rows[:, -1].astype(np.int64)


@cache
def _table() -> Int64[np.ndarray, "images 65"]:
    path = data_file("sklearn", "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt", encoding="ascii") as file:
        return np.loadtxt(file, delimiter=",").astype(np.int64)
