"""Pairs of English news: 50 short documents, and how similar people found each two of them.

Each of the 1,225 pairs was judged several times, from 1 (highly unrelated) to 5 (highly related);
here it has the mean, divided by 5: from 0.2 to 1.

Source: Lee, Pincombe and Welsh, "An empirical evaluation of models of text document similarity",
Proceedings of the 27th Annual Conference of the Cognitive Science Society, 2005; the copy read here
comes inside the package `gensim`, https://pypi.org/project/gensim, none of whose code is run.
"""

import numpy as np
from jaxtyping import Float64

from transformer_lit.data._packages import data_file

_FOLDER = ("test", "test_data")


def load() -> tuple[list[str], Float64[np.ndarray, "documents documents"]]:
    """Return the documents and the symmetric matrix of their mean judged similarities.

    Raises:
        ImportError: if gensim is not installed.
    """
    text = data_file("gensim", *_FOLDER, "lee.cor").read_text("latin-1")
    documents = [line.strip() for line in text.splitlines() if line.strip()]
    judged = np.loadtxt(data_file("gensim", *_FOLDER, "similarities0-1.txt"))
    # The file has the numbers above the diagonal, and zeros below.
    return documents, np.triu(judged, 1) + np.triu(judged).T
