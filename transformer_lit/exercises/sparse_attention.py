"""The checks of chapter 20, only some edges."""

import torch

from transformer_lit.exercises import Mistake, exercise


@exercise
def scores_made(answer):
    """Check a function from seq, window and size to the scores that the stretches compute."""
    for seq, window, size in ((100, 8, 16), (96, 5, 32), (7, 2, 7), (65, 40, 64)):
        stretches = -(-seq // size)
        right = stretches * size * (size + 2 * window)
        found = int(answer(seq, window, size))
        if found == right:
            continue
        hints = {
            stretches * size * (size + window): "the keys stretch over both sides of the stretch.",
            seq * (size + 2 * window): "the last stretch is filled up, and its filler asks too.",
            seq
            // size
            * size
            * (size + 2 * window): "the last stretch may be cut short by the end "
            "of the sequence, and is one all the same: round up.",
            seq * (2 * window + 1): "those are the scores that count. The stretches compute more.",
            stretches
            * (size + 2 * window): "those are keys. Each of the queries in a stretch meets "
            "all of them.",
            seq * seq: "that is the full table.",
        }
        raise Mistake(
            hints.get(
                found,
                f"for seq {seq}, window {window} and size {size} it is {right}, got {found}.",
            )
        )


@exercise
def causal_edges(answer):
    """Check a function from seq and window to the edges of a window that sees no future."""
    for seq, window in ((7, 2), (5, 0), (3, 11)):
        found = answer(seq, window)
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 2:
            raise Mistake("the edges should be a tensor of shape (2, edges).")
        if found.is_floating_point() or found.dtype == torch.bool:
            raise Mistake(f"the edges should be integers, got {found.dtype}.")
        if _same(found, _near(seq, window, 0)):
            if found.shape[1] != _near(seq, window, 0).shape[1]:
                raise Mistake("the pairs are right, but some are listed twice.")
            continue
        mistakes = {
            "row 0 holds who looks, row 1 who is looked at: these look ahead.": _near(
                seq, 0, window
            ),
            "that is the window on both sides: leave out what comes after.": _near(
                seq, window, window
            ),
            "a position may look at itself too.": _near(seq, window, -1),
            "that is one step too many.": _near(seq, window + 1, 0),
            "that is the past without a window.": _near(seq, seq, 0),
        }
        for hint, wrong in mistakes.items():
            if _same(found, wrong):
                raise Mistake(hint)
        raise Mistake(
            f"for seq {seq} and window {window} the last position should look at "
            f"{list(range(max(0, seq - 1 - window), seq))}."
        )


def _near(seq: int, before: int, after: int) -> torch.Tensor:
    steps = torch.arange(seq) - torch.arange(seq)[:, None]
    return ((steps >= -before) & (steps <= after)).nonzero().T


def _same(edges: torch.Tensor, others: torch.Tensor) -> bool:
    return set(map(tuple, edges.T.tolist())) == set(map(tuple, others.T.tolist()))


@exercise
def favourites(answer):
    """Check a function from two numbers per node to the node that each looks at most."""
    draws = torch.Generator().manual_seed(0)
    for nodes in (7, 5, 11):
        of_query, of_key = torch.randn(2, nodes, generator=draws)
        right = of_key.argmax().expand(nodes)
        found = answer(of_query.clone(), of_key.clone())
        if not isinstance(found, torch.Tensor) or found.shape != (nodes,):
            raise Mistake("the answer should be a tensor with one node for each node.")
        if found.is_floating_point() or found.dtype == torch.bool:
            raise Mistake(f"the answer should be integers, got {found.dtype}.")
        if torch.equal(found, right):
            continue
        mistakes = {
            "the number of the query is the same for all its edges. Which one differs?": (
                of_query.argmax().expand(nodes),
                (of_query + of_key).argmax().expand(nodes),
            ),
            "that is the node that everybody looks at least.": (of_key.argmin().expand(nodes),),
            "that is a ranking of the nodes. Only its first is asked for, once per node.": (
                of_key.argsort(descending=True),
                of_key.argsort(),
            ),
            "a node may prefer others to itself.": (torch.arange(nodes),),
        }
        for hint, wrong in mistakes.items():
            if any(torch.equal(found, one) for one in wrong):
                raise Mistake(hint)
        raise Mistake(f"here each node looks most at {int(right[0])}, got {found.tolist()}.")


@exercise
def neighbours_mean(answer):
    """Check a function from vectors (nodes, width) and edges to the mean over each one's edges."""
    draws = torch.Generator().manual_seed(0)
    mask = torch.rand(7, 7, generator=draws) < 0.4
    mask[3], mask[5, 5] = False, True  # node 3 looks at nobody
    x = torch.randn(7, 5, generator=draws)
    edges, given = mask.nonzero().T, x.clone()
    found = answer(given, edges.clone())
    if not isinstance(found, torch.Tensor) or found.shape != x.shape:
        raise Mistake(f"the answer should be a tensor of shape {tuple(x.shape)}.")
    if not torch.equal(given, x):
        raise Mistake("the vectors you were given have changed. Add into a tensor of zeros.")
    if found[3].isnan().any() or found[3].isinf().any():
        raise Mistake("node 3 looks at nobody and should get zeros: 0 / 0 is NaN.")

    def mixed(table):
        return table.float() @ x

    counts = mask.sum(1, keepdim=True).clamp(min=1)
    right = mixed(mask) / counts
    if torch.allclose(found, right, atol=1e-5):
        return
    written = torch.zeros_like(x)
    written[edges[0]] = x[edges[1]]
    mistakes = {
        "that is the sum. Divide it by the number of edges.": mixed(mask),
        "rows look, columns are looked at: these are the means over those who look.": mixed(mask.T)
        / mask.T.sum(1, keepdim=True).clamp(min=1),
        "a node sees itself only along an edge to itself.": (mixed(mask) + x) / (counts + 1),
        "assigning with repeated indices keeps one value of many. Add, with index_add.": written,
        "divide by the edges of each node, not by the number of nodes.": mixed(mask) / len(x),
    }
    looking = mask.any(1)
    for hint, wrong in mistakes.items():
        if torch.allclose(found[looking], wrong[looking], atol=1e-5):
            raise Mistake(hint)
    raise Mistake(f"node 0 looks at {mask[0].nonzero().flatten().tolist()}; take their mean.")
