"""The checks of chapter 13, generating."""

import jiwer
import torch

from transformer_lit.exercises import Mistake, exercise


@exercise
def count(answer):
    """Check a function from n_symbols and max_len to the sequences that stop in time."""
    for n_symbols, max_len in ((3, 4), (2, 5), (1, 7), (5, 1)):
        right = sum(n_symbols**n for n in range(max_len))
        found = int(answer(n_symbols, max_len))
        if found == right:
            continue
        hints = {
            right - 1: "the empty sequence counts too: the stop token may come first.",
            right + n_symbols**max_len: "the stop token takes one of the max_len places.",
            right + n_symbols**max_len - 1: "the stop token takes one of the max_len places, and "
            "it may come first.",
            n_symbols ** (max_len - 1): "those are the longest ones only.",
            n_symbols**max_len: "those are the sequences that never stop.",
            (n_symbols + 1) ** max_len: "nothing follows a stop token, so it is no symbol like "
            "the others.",
        }
        raise Mistake(
            hints.get(
                found, f"for {n_symbols} symbols and max_len {max_len} it is {right}, got {found}."
            )
        )


@exercise
def min_p(answer):
    """Check a function that cuts what is unlikely relative to the likeliest."""
    probs = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05], [0.9, 0.06, 0.02, 0.01, 0.01]])
    # Unnormalised, and the likeliest is not the first.
    logits = (probs.log() + torch.tensor([[3.0], [-2.0]]))[:, [3, 0, 4, 2, 1]]
    for p in (0.11, 0.5, 1.0):
        probs = logits.softmax(-1)
        share = probs / probs.amax(-1, keepdim=True)
        right = logits.masked_fill(share < p, -torch.inf)
        found = answer(logits.clone(), p)
        if not isinstance(found, torch.Tensor) or found.shape != logits.shape:
            raise Mistake(f"the answer should be a tensor of shape {tuple(logits.shape)}.")
        kept = found > -torch.inf
        if torch.equal(kept, right > -torch.inf):
            if torch.allclose(found, right):
                continue
            raise Mistake("the right symbols are kept, but their logits should stay as they are.")
        if torch.equal(found, torch.where(share < p, 0, logits)):
            raise Mistake("a logit of 0 is a logit like any other: e to the 0 is 1. Use -inf.")
        mistakes = {
            "the likeliest symbol itself is always kept: at least p times, not more.": share > p,
            "the limit is p times the largest probability, not p itself.": probs >= p,
            "these are kept the wrong way round.": share < p,
            "each row has a likeliest symbol of its own.": probs >= p * probs.max(),
            "compare probabilities, not logits.": logits >= p * logits.amax(-1, keepdim=True),
        }
        for hint, wrong in mistakes.items():
            if torch.equal(kept, wrong):
                raise Mistake(hint)
        wanted = (share[0] >= p).nonzero().flatten().tolist()
        raise Mistake(
            f"with p = {p}, row 0 should keep {wanted}, got {kept[0].nonzero().flatten().tolist()}."
        )


@exercise
def may_end(answer):
    """Check a function that tells when no beginning can overtake what is whole."""
    cases = (
        (-0.5, [-4.0, -4.5], 1.0, 10, False, "it may grow longer: divide by max_len ** alpha."),
        (-0.5, [-6.0, -5.5], 1.0, 10, True, "at max_len the best of them scores -0.55 at most."),
        (-0.5, [-8.0, -1.0], 1.0, 10, False, "all beginnings have to be hopeless, not one."),
        (-0.5, [-1.0, -8.0], 1.0, 10, False, "all beginnings have to be hopeless, not the last."),
        (-2.0, [-2.5, -3.0], 0.0, 10, True, "with alpha = 0 the length does not matter."),
        (-2.0, [-1.5, -3.0], 0.0, 10, False, "with alpha = 0 the length does not matter."),
        (-1.0, [-6.0], 2.0, 2, True, "the divisor is max_len ** alpha, not max_len."),
        (-1.0, [-6.0], 2.0, 3, False, "the divisor is max_len ** alpha, not max_len."),
        (-1.0, [], 1.0, 5, True, "where nothing is running, nothing can become better."),
    )
    for finished, running, alpha, max_len, right, hint in cases:
        if bool(answer(finished, list(running), alpha, max_len)) != right:
            raise Mistake(
                f"finished {finished}, running {running}, alpha {alpha}, max_len {max_len}: {hint}"
            )


@exercise
def edits(answer):
    """Check a function from two lists of symbols to their edit distance."""
    cases = (
        ("K AE T", "K AE T"),
        ("AE K T", "K AE T"),
        ("K AA T", "K AE T"),
        ("K T", "K AE T"),
        ("K AE T S", "K AE T"),
        ("S OW F M AO R", "S AA F AH M AO R"),
        ("AH", "K AE T S"),
        ("", "K AE"),
    )
    for said, truth in cases:
        one, other = said.split(), truth.split()
        counts = jiwer.process_words(truth, said)
        right = counts.substitutions + counts.deletions + counts.insertions
        found = answer(list(one), list(other))
        if found == right:
            continue
        where = f"for {said or 'nothing'} instead of {truth} it is {right}, got {found}."
        by_place = sum(a != b for a, b in zip(one, other, strict=False))
        unplaced = len(set(one) ^ set(other))
        if found == right / len(other) and right:
            raise Mistake("the number of edits is asked for, not divided by the length.")
        if said and found == by_place + abs(len(one) - len(other)) and found != right:
            raise Mistake(f"one missing symbol shifts the others and should cost 1; {where}")
        if found == by_place:
            raise Mistake(f"what is left over counts as well: insertions and deletions; {where}")
        if found == _without_replacing(one, other):
            raise Mistake(f"a replacement is one edit, not a deletion and an insertion; {where}")
        if found == unplaced:
            raise Mistake(f"order counts: these are not sets; {where}")
        raise Mistake(where)


def _without_replacing(one: list[str], other: list[str]) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        before, row = row, [i]
        for j, b in enumerate(other, start=1):
            row.append(before[j - 1] if a == b else 1 + min(before[j], row[-1]))
    return row[-1]
