"""A karate club of 34 people before it split in two: who met whom, and which club each joined.

Source: Zachary, "An information flow model for conflict and fission in small groups", Journal of
Anthropological Research 33, 1977, pages 452-473, https://doi.org/10.1086/jar.33.4.3629752; the copy
read here comes inside the package `networkx`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from transformer_lit.data._packages import INSTALL

CLUBS = ("Mr. Hi", "Officer")


class Graph(NamedTuple):
    """A graph whose nodes are people."""

    features: Float32[np.ndarray, "nodes nodes"]  # one-hot: nothing is known of a person but who
    adjacency: Bool[np.ndarray, "nodes nodes"]  # True where two people met; no loops
    labels: Int64[np.ndarray, " nodes"]  # the club joined, as an index of CLUBS


def load() -> Graph:
    """Return the club's 34 people, their 78 ties and the club each joined after the split.

    Raises:
        ImportError: if networkx is not installed.
    """
    try:
        from networkx import karate_club_graph
    except ImportError as error:
        raise ImportError(f"this data set comes inside the package networkx: {INSTALL}") from error
    graph = karate_club_graph()
    adjacency = np.zeros((len(graph), len(graph)), dtype=bool)
    for one, other in graph.edges:
        adjacency[one, other] = adjacency[other, one] = True
    labels = np.array([CLUBS.index(graph.nodes[node]["club"]) for node in range(len(graph))])
    return Graph(np.eye(len(graph), dtype=np.float32), adjacency, labels.astype(np.int64))
