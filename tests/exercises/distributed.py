"""Answers to the exercises of chapter 22."""

from transformer_lit.exercises import distributed as check

RIGHT, WRONG = {}, {}

# ---- sent

TRIPS = {"data parallel": 2, "sharded": 3}


def sent(way, size, world):
    return TRIPS[way] * size * (world - 1) / world


RIGHT[check.sent] = [sent]

WRONG[check.sent] = [
    (lambda way, p, n: TRIPS[way] * p, "the limit for many processes"),
    (lambda way, p, n: TRIPS[way] * p / n, "N - 1 pieces"),
    (lambda way, p, n: n * sent(way, p, n), "all processes send together"),
    (lambda way, p, n: sent(way, p, n) / TRIPS[way], "one trip around the ring"),
    (lambda way, p, n: 2 * p * (n - 1) / n, "gathered twice"),
    (lambda way, p, n: 2 * p * (n - 1) / n * (1 + (way == "sharded")), "scattered only"),
    (lambda way, p, n: 3 * p * (n - 1) / n, "nothing has to be gathered"),
    (lambda way, p, n: 77, "it is 1440, got 77."),
]

# ---- share


def share(counts):
    return [len(counts) * count / sum(counts) for count in counts]


RIGHT[check.share] = [share]

WRONG[check.share] = [
    (lambda counts: [1] * len(counts), "a short share counts as much"),
    (lambda counts: [c / sum(counts) for c in counts], "multiply by N"),
    (lambda counts: counts, "divide by the places of the whole batch"),
    (lambda counts: [len(counts) * c for c in counts], "divide by the places of the whole batch"),
    (lambda counts: [1 / x if x else 0 for x in share(counts)], "upside down"),
    (lambda counts: [c / max(counts) for c in counts], "not by the most"),
    (lambda counts: share(counts)[:-1], "each of the 2 processes, got 1"),
    (lambda counts: [7.0] * len(counts), "got [7.0, 7.0]."),
]

# ---- columns


def columns(x, weight, bias, world, spread=1.0):
    parts = zip(x.chunk(world, dim=-1), weight.chunk(world, dim=-1), strict=True)
    return [a @ w.T + spread * bias / world for a, w in parts]


def columns_and_bias_in_one(x, weight, bias, world):
    first, *others = columns(x, weight, bias, world, 0)
    return [first + bias, *others]


def one_does_all(x, weight, bias, world):
    whole = x @ weight.T
    return [whole + bias] + [0 * whole] * (world - 1)


RIGHT[check.columns] = [columns, columns_and_bias_in_one]

WRONG[check.columns] = [
    (lambda x, w, b, n: columns(x, w, b, n, n), "once for each process"),
    (lambda x, w, b, n: columns(x, w, b, n, 0), "the bias is missing"),
    (lambda x, w, b, n: [x @ w.T + b] * n, "each process computes all of it"),
    (lambda x, w, b, n: [(x @ w.T + b) / n] * n, "each process computes all of it"),
    (lambda x, w, b, n: [part / n for part in columns(x, w, b, n)], "divide nothing but the bias"),
    (lambda x, w, b, n: columns(x, w, b, n)[:1], "each of the 2 processes, got 1"),
    (lambda x, w, b, n: (x @ w.T + b).chunk(n, dim=-1), "has the shape of the whole output"),
    (lambda x, w, b, n: columns(x, w.flip(-1), b, n), "do x and weight match?"),
    (lambda x, w, b, n: [(x @ w.T) * (i == 0) + b / n for i in range(n)], "one process computes"),
    (one_does_all, "one process computes"),
]

# ---- joint


def joint(n_layers, together):
    return n_layers * (4 if together else 6)


RIGHT[check.joint] = [joint]

WRONG[check.joint] = [
    (lambda n, together: 4 if together else 6, "multiply by their number"),
    (lambda n, together: 2 * n, "the way back needs messages"),
    (lambda n, together: 3 * n, "count both parts"),
    (lambda n, together: 4 * n, "the other case"),
    (lambda n, together: n * (4 if together else 8), "only the attention has three"),
    (lambda n, together: 11, "joined, 1 blocks: 4, got 11."),
]
