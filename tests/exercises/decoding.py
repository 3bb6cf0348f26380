"""Answers to the exercises of chapter 13."""

import jiwer
import torch

from transformer_lit.exercises import decoding as check

RIGHT, WRONG = {}, {}

# ---- count

RIGHT[check.count] = [lambda n, m: sum(n**i for i in range(m))]

WRONG[check.count] = [
    (lambda n, m: sum(n**i for i in range(1, m)), "the empty sequence counts too"),
    (lambda n, m: sum(n**i for i in range(m + 1)), "takes one of the max_len places."),
    (lambda n, m: sum(n**i for i in range(1, m + 1)), "and it may come first"),
    (lambda n, m: n ** (m - 1), "the longest ones only"),
    (lambda n, m: n**m, "never stop"),
    (lambda n, m: (n + 1) ** m, "nothing follows a stop token"),
    (lambda n, m: 41, "it is 40, got 41"),
]


# ---- min_p


def min_p(logits, p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < p * probs.amax(-1, keepdim=True), -torch.inf)


RIGHT[check.min_p] = [min_p]


def strict(logits, p):
    share = logits.softmax(-1) / logits.softmax(-1).amax(-1, keepdim=True)
    return logits.masked_fill(share <= p, -torch.inf) if p == 1 else min_p(logits, p)


WRONG[check.min_p] = [
    (strict, "itself is always kept"),
    (lambda z, p: z.masked_fill(z.softmax(-1) < p, -torch.inf), "not p itself"),
    (
        lambda z, p: z.masked_fill(min_p(z, p) > -torch.inf, -torch.inf),
        "the wrong way round",
    ),
    (
        lambda z, p: z.masked_fill(z.softmax(-1) < p * z.softmax(-1).max(), -torch.inf),
        "a likeliest symbol of its own",
    ),
    (
        lambda z, p: z.masked_fill(z < p * z.amax(-1, keepdim=True), -torch.inf),
        "compare probabilities, not logits",
    ),
    (lambda z, p: torch.where(min_p(z, p) > -torch.inf, z, 0), "e to the 0 is 1"),
    (lambda z, p: min_p(z, p).softmax(-1).log(), "should stay as they are"),
    (lambda z, p: min_p(z, p)[0], "of shape (2, 5)"),
    (lambda z, p: z, "row 0 should keep"),
]


# ---- may_end


def may_end(finished, running, alpha, max_len):
    return all(log_prob / max_len**alpha <= finished for log_prob in running)


RIGHT[check.may_end] = [may_end]

WRONG[check.may_end] = [
    (lambda f, r, a, m: all(x <= f for x in r), "it may grow longer"),
    (lambda f, r, a, m: False, "scores -0.55 at most"),
    (lambda f, r, a, m: any(x / m**a <= f for x in r), "not one"),
    (lambda f, r, a, m: r[-1] / m**a <= f, "not the last"),
    (lambda f, r, a, m: all(x / m <= f for x in r), "with alpha = 0"),
    (
        lambda f, r, a, m: all(x / (m if a else 1) <= f for x in r),
        "the divisor is max_len ** alpha",
    ),
    (lambda f, r, a, m: bool(r) and may_end(f, r, a, m), "where nothing is running"),
]


# ---- edits


def edits(answer, truth, replacing=1):
    row = list(range(len(truth) + 1))
    for i, a in enumerate(answer, start=1):
        before, row = row, [i]
        for j, t in enumerate(truth, start=1):
            cost = replacing * (a != t)
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + cost))
    return row[-1]


RIGHT[check.edits] = [edits, lambda a, t: round(jiwer.wer(" ".join(t), " ".join(a)) * len(t))]

WRONG[check.edits] = [
    (lambda a, t: edits(a, t) / len(t), "not divided by the length"),
    (lambda a, t: sum(x != y for x, y in zip(a, t, strict=False)), "what is left over counts"),
    (
        lambda a, t: sum(x != y for x, y in zip(a, t, strict=False)) + abs(len(a) - len(t)),
        "shifts the others",
    ),
    (lambda a, t: len(set(a) ^ set(t)), "order counts"),
    (lambda a, t: edits(a, t, replacing=2), "a deletion and an"),
    (lambda a, t: -1, "it is 0, got -1"),
]
