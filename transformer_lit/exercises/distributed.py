"""The checks of chapter 22, many machines."""

import math

import torch

from transformer_lit.exercises import Mistake, exercise


@exercise
def sent(answer):
    """Check a function from a way, the model's bytes and the processes to the bytes each sends."""
    for way, trips in (("data parallel", 2), ("sharded", 3)):
        for size, world in ((840, 7), (1320, 5), (840, 2)):
            right = trips * size * (world - 1) / world
            found = float(answer(way, size, world))
            if math.isclose(found, right):
                continue
            hints = [
                (trips * size, "that is the limit for many processes: each keeps one piece of its "
                "own, which it never sends."),
                (trips * size / world, "in each half of the ring a process sends N - 1 pieces, "
                "not one."),
                (right * world, "that is what all processes send together, or each if a piece were "
                "the whole."),
                (right / trips, "that is one trip around the ring; an all-reduce makes two, a "
                "reduce-scatter and an all-gather one each."),
                (2 * right / 3 if way == "sharded" else -1, "the weights are gathered twice: "
                "between forward and backward they were forgotten."),
                (4 * right / 3 if way == "sharded" else -1, "the gradients are scattered only: no "
                "process needs them all."),
                (1.5 * right if way != "sharded" else -1, "here nothing has to be gathered before "
                "the model is used."),
            ]  # fmt: skip
            for wrong, hint in hints:
                if math.isclose(found, wrong):
                    raise Mistake(hint)
            raise Mistake(
                f"{way}, {size} bytes and {world} processes: it is {right:g}, got {found:g}."
            )


@exercise
def share(answer):
    """Check a function from counts of places to the factors of the processes' mean losses."""
    for counts in ([2, 1], [4, 4, 4], [5, 0, 3, 11]):
        n, world = sum(counts), len(counts)
        right = [world * count / n for count in counts]
        found = [float(factor) for factor in answer(list(counts))]
        if len(found) != world:
            raise Mistake(f"return a factor for each of the {world} processes, got {len(found)}.")
        if torch.allclose(torch.tensor(found), torch.tensor(right)):
            continue
        hints = [
            ([1.0] * world, "with equal factors a short share counts as much as a long one."),
            ([c / n for c in counts], "the mean over the processes divides by N once more: "
            "multiply by N."),
            ([float(c) for c in counts], "divide by the places of the whole batch."),
            ([world * c for c in counts], "divide by the places of the whole batch."),
            ([n / (world * c) if c else 0.0 for c in counts], "that is upside down: who has more "
            "places counts for more."),
            ([c / max(counts) for c in counts], "divide by all places, not by the most that one "
            "process has."),
        ]  # fmt: skip
        for wrong, hint in hints:
            if torch.allclose(torch.tensor(found), torch.tensor([float(x) for x in wrong])):
                raise Mistake(hint)
        raise Mistake(f"for {counts} they are {right}, got {found}.")


@exercise
def columns(answer):
    """Check the parts of a linear layer whose weight is cut by columns."""
    generator = torch.Generator().manual_seed(0)
    for world in (2, 3):
        x, weight, bias = (torch.randn(s, generator=generator) for s in ((5, 12), (7, 12), (7,)))
        found = list(answer(x, weight, bias, world))
        if len(found) != world:
            raise Mistake(f"return a part for each of the {world} processes, got {len(found)}.")
        for part in found:
            if tuple(part.shape) != (5, 7):
                raise Mistake(
                    "each part has the shape of the whole output, (5, 7), since parts are summed; "
                    f"got {tuple(part.shape)}."
                )
        total, right = sum(found), x @ weight.T + bias
        hints = [
            (right + (world - 1) * bias, "the bias is in the sum once for each process."),
            (right - bias, "the bias is missing from the sum."),
            (world * right, "each process computes all of it: cut x and the weight."),
            (right / world, "divide nothing but the bias: the parts are different already."),
        ]
        if torch.allclose(total, right, atol=1e-5):
            whole = x @ weight.T
            rests = [part - whole for part in found]  # what is left may be some of the bias
            if any(torch.allclose(rest, rest[:1], atol=1e-4) for rest in rests):
                raise Mistake("one process computes all of it: give each some of the columns.")
            if any(torch.allclose(part, right / world, atol=1e-4) for part in found):
                raise Mistake("each process computes all of it: cut x and the weight.")
            continue
        for wrong, hint in hints:
            if torch.allclose(total, wrong, atol=1e-4):
                raise Mistake(hint)
        raise Mistake("the parts do not sum to the layer's output: do x and weight match?")


@exercise
def joint(answer):
    """Check a function to the number of all-reduces of a tensor parallel encoder."""
    for n_layers in (1, 3):
        for together, each in ((True, 4), (False, 6)):
            found = answer(n_layers, together)
            if found == n_layers * each:
                continue
            hints = {
                each: "that is one block: multiply by their number.",
                2 * n_layers: "the way back needs messages too: each process knows its own part "
                "of the gradient only.",
                3 * n_layers: "count both parts of the block, attention and network, on both ways.",
                n_layers * (10 - each): "that is the other case: one message for queries, keys "
                "and values together, or three.",
                8 * n_layers: "the network has one path back, only the attention has three.",
            }
            way = "joined" if together else "one by one"
            raise Mistake(
                hints.get(found, f"{way}, {n_layers} blocks: {n_layers * each}, got {found}.")
            )
