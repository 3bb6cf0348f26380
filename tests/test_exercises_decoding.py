"""Each check of chapter 13: the stub is not yet, the solution passes, a mistake gets its hint."""

import jiwer
import pytest
import torch

from tests.verdicts import refused, stub
from transformer_lit.exercises import decoding as check


def test_what_is_unwritten_is_not_yet():
    verdicts = (check.count(stub), check.min_p(stub), check.may_end(stub), check.edits(stub))
    for verdict in verdicts:
        assert not verdict and str(verdict).startswith("Not yet: ")


# ---- count


def test_the_count_of_sequences_passes():
    assert check.count(lambda n, m: sum(n**i for i in range(m)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, m: sum(n**i for i in range(1, m)), "the empty sequence counts too"),
        (lambda n, m: sum(n**i for i in range(m + 1)), "takes one of the max_len places."),
        (lambda n, m: sum(n**i for i in range(1, m + 1)), "and it may come first"),
        (lambda n, m: n ** (m - 1), "the longest ones only"),
        (lambda n, m: n**m, "never stop"),
        (lambda n, m: (n + 1) ** m, "nothing follows a stop token"),
        (lambda n, m: 41, "it is 40, got 41"),
    ],
)
def test_a_wrong_count_gets_its_hint(answer, hint):
    refused(check.count(answer), hint)


# ---- min_p


def min_p(logits, p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < p * probs.amax(-1, keepdim=True), -torch.inf)


def test_a_cut_relative_to_the_likeliest_passes():
    assert check.min_p(min_p)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_a_wrong_cut_gets_its_hint(answer, hint):
    refused(check.min_p(answer), hint)


def test_a_cut_that_loses_the_likeliest_gets_its_hint():
    def strict(z, p):
        probs = z.softmax(-1)
        share = probs / probs.amax(-1, keepdim=True)
        return z.masked_fill(share <= p, -torch.inf) if p == 1 else min_p(z, p)

    refused(check.min_p(strict), "itself is always kept")


# ---- may_end


def may_end(finished, running, alpha, max_len):
    return all(log_prob / max_len**alpha <= finished for log_prob in running)


def test_a_rule_for_the_end_passes():
    assert check.may_end(may_end)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_a_wrong_rule_for_the_end_gets_its_hint(answer, hint):
    refused(check.may_end(answer), hint)


# ---- edits


def edits(answer, truth, replacing=1):
    row = list(range(len(truth) + 1))
    for i, a in enumerate(answer, start=1):
        before, row = row, [i]
        for j, t in enumerate(truth, start=1):
            cost = replacing * (a != t)
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + cost))
    return row[-1]


def test_the_edit_distance_passes():
    assert check.edits(edits)
    assert check.edits(lambda a, t: round(jiwer.wer(" ".join(t), " ".join(a)) * len(t)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, t: edits(a, t) / len(t), "not divided by the length"),
        (lambda a, t: sum(x != y for x, y in zip(a, t, strict=False)), "what is left over counts"),
        (
            lambda a, t: sum(x != y for x, y in zip(a, t, strict=False)) + abs(len(a) - len(t)),
            "shifts the others",
        ),
        (lambda a, t: len(set(a) ^ set(t)), "order counts"),
        (lambda a, t: edits(a, t, replacing=2), "a deletion and an"),
        (lambda a, t: -1, "it is 0, got -1"),
    ],
)
def test_a_wrong_edit_distance_gets_its_hint(answer, hint):
    refused(check.edits(answer), hint)
