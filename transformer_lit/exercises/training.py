"""The checks of chapter 12, teacher forcing."""

import math

import torch
import torch.nn.functional as F

from transformer_lit.exercises import Mistake, exercise


def _close(found, right):
    return torch.allclose(found.float(), right.float(), atol=1e-5)


@exercise
def lowest(answer):
    """Check a function from label_smoothing and vocab_size to the lowest loss there can be."""
    for share, size in ((0.1, 31), (0.1, 5), (0.5, 2), (0.0, 7)):
        other = share / size
        most = 1 - share + other
        right = -sum(p * math.log(p) for p in (most, *[other] * (size - 1)) if p)
        found = float(answer(share, size))
        if math.isclose(found, right, abs_tol=1e-6):
            continue
        hints = {
            0.0: "a probability of one for the right class costs -log 0 for each of the others.",
            -math.log(most): "that is the right class alone: the other classes have their share "
            "in the loss too.",
            -math.log(1 - share): "the right class keeps its part of the share that is spread, "
            "and the other classes have theirs in the loss too.",
            math.log(size): "that is the loss of knowing nothing.",
        }
        if share and size > 2:
            without = share / (size - 1)
            hints[-(1 - share) * math.log(1 - share) - share * math.log(without)] = (
                "the share is spread over all classes, the right one included."
            )
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        if math.isnan(found):
            raise Mistake("without smoothing 0 times log 0 comes up: it counts as 0.")
        raise Mistake(f"for {share} and {size} classes it is {right:.4f}, got {found:.4f}.")


@exercise
def gradient(answer):
    """Check a function from logits (classes,), a label and label_smoothing to the gradient."""
    draws = torch.Generator().manual_seed(0)
    for size, label, share in ((5, 2, 0.0), (7, 0, 0.1), (3, 1, 0.5)):
        logits = torch.randn(size, generator=draws)
        said = logits.softmax(-1)
        one = F.one_hot(torch.tensor(label), size)
        wanted = (1 - share) * one + share / size
        found = answer(logits.clone(), label, share)
        if not isinstance(found, torch.Tensor) or found.shape != logits.shape:
            raise Mistake(f"the gradient should be a tensor of shape ({size},).")
        if _close(found, said - wanted):
            continue
        mistakes = {
            "the sign: what was said minus what is wanted.": wanted - said,
            "that is the gradient without smoothing.": said - one,
            "the share that is spread has to be taken from the right class first.": said
            - one
            - share / size,
            "the softmax of the logits is missing.": logits - wanted,
            "that is the gradient for the probabilities, it has to go on to the logits.": -wanted
            / said,
        }
        for hint, wrong in mistakes.items():
            if _close(found, wrong):
                raise Mistake(hint)
        if abs(float(found.sum())) > 1e-4:
            raise Mistake(
                f"the numbers should sum to 0 (why?), yours sum to {float(found.sum()):.3f}."
            )
        raise Mistake(
            f"for label {label} and smoothing {share} it is "
            f"{[round(x, 2) for x in (said - wanted).tolist()]}."
        )


@exercise
def budgeted(answer):
    """Check a function from lengths and most to batches of at most so many places, padding too."""
    mixed = [9, 1, 2, 9, 1, 2]
    for lengths, most in (([3, 5, 5, 2, 3, 1], 10), (mixed, 18), ([2] * 7, 6), ([7, 1, 1, 1], 7)):
        batches = [[int(i) for i in rows] for rows in answer(list(lengths), most)]
        rows = sorted(i for rows in batches for i in rows)
        if any(not rows for rows in batches):
            raise Mistake("one of the batches is empty.")
        if len(rows) > len(set(rows)):
            raise Mistake("a sequence is in two batches.")
        if rows != list(range(len(lengths))):
            lost = sorted(set(range(len(lengths))) - set(rows))
            raise Mistake(f"of lengths {lengths} the sequences {lost} are in no batch.")
        for rows in batches:
            real = sum(lengths[i] for i in rows)
            places = len(rows) * max(lengths[i] for i in rows)
            if real <= most < places:
                raise Mistake(
                    f"a batch of lengths {[lengths[i] for i in rows]} has {places} places with "
                    f"its padding, and {most} are allowed: padding counts too."
                )
            if places > most:
                raise Mistake(f"a batch has {places} places, and {most} are allowed.")
        if all(len(rows) == 1 for rows in batches):
            raise Mistake("each sequence is alone: fill a batch up as long as there is room.")
        best = _greedy(sorted(lengths), most)
        if len(batches) > best:
            raise Mistake(
                f"lengths {lengths} fit into {best} batches of {most} places, yours are "
                f"{len(batches)}: sort by length first, and begin a new batch only when it is full."
            )


def _greedy(lengths, most):
    """Count the batches that are filled up in order."""
    count, size = 1, 0
    for length in lengths:
        if (size + 1) * length > most:
            count, size = count + 1, 0
        size += 1
    return count


@exercise
def in_parts(answer):
    """Check a function from the real places of the parts of a batch to the weight of each loss."""
    for places in ([3, 1], [5, 5], [7, 2, 11]):
        total = sum(places)
        found = torch.as_tensor(answer(list(places))).flatten().double()
        if len(found) != len(places):
            raise Mistake(f"there should be {len(places)} weights, got {len(found)}.")
        right = torch.tensor(places).double() / total
        if torch.allclose(found, right, atol=1e-6):
            continue
        mistakes = {
            "the mean of means is not the mean: a part with more places counts for more.": (
                torch.full_like(right, 1 / len(places))
            ),
            "that is for parts whose gradients are averaged. Here they add up.": right
            * len(places),
            "the loss of a part is a mean already. Its sum would be its mean times its "
            "places.": torch.full_like(right, 1 / total),
            "the weights should sum to one: divide by all places.": torch.tensor(places).double(),
            "the other way round: more places, more weight.": (1 / right) / (1 / right).sum(),
        }
        for hint, wrong in mistakes.items():
            if torch.allclose(found, wrong, atol=1e-6):
                raise Mistake(hint)
        raise Mistake(f"for {places} places the weights are {right.tolist()}.")
