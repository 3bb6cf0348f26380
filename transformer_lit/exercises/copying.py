"""The checks of chapter 16, copying."""

import math

import torch

from transformer_lit.copying import mixture
from transformer_lit.exercises import Mistake, exercise


@exercise
def was_copied(answer):
    """Check a function from p_gen, P_vocab(w) and the weights where w stands to P(copied | w)."""
    for p_gen, p_vocab, weights in ((0.25, 0.2, [0.1]), (0.6, 0.3, [0.2, 0.5]), (0.5, 0.1, [])):
        wrote, copied = p_gen * p_vocab, (1 - p_gen) * sum(weights)
        right = copied / (wrote + copied)
        found = float(answer(p_gen, p_vocab, list(weights)))
        if math.isclose(found, right, abs_tol=1e-6):
            continue
        hints = {
            copied: "that is the probability that the word comes and is copied. You know already "
            "that it came: divide by P(w).",
            1 - p_gen: "that is the probability before you saw which word came.",
            wrote / (wrote + copied): "that is the probability that it was written.",
            sum(weights) / (p_vocab + sum(weights)): "the two ways are not equally likely: p_gen "
            "and 1 - p_gen belong to them.",
            wrote + copied: "that is P(w) itself.",
        }
        if len(weights) > 1:
            one = (1 - p_gen) * weights[0]
            hints[one / (wrote + one)] = "the word stands in more than one place."
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        raise Mistake(
            f"for p_gen {p_gen}, P_vocab {p_vocab} and weights {weights} it is {right:.4f}, "
            f"got {found:.4f}."
        )


@exercise
def gate_gradient(answer):
    """Check a function from p_gen, P_vocab(w) and the copied weight to d(-log P(w)) / d(gate)."""
    for p_gen, p_vocab, weight in ((0.25, 0.2, 0.1), (0.6, 0.0, 0.7), (0.5, 0.9, 0.0)):
        mixed = p_gen * p_vocab + (1 - p_gen) * weight
        wrote = p_gen * p_vocab / mixed
        found = float(answer(p_gen, p_vocab, weight))
        if math.isclose(found, p_gen - wrote, abs_tol=1e-6):
            continue
        hints = {
            wrote - p_gen: "that is the gradient of log P(w). The loss has the other sign.",
            (weight - p_vocab) / mixed: "that is the gradient by p_gen. The gate goes through a "
            "sigmoid, whose derivative is p_gen * (1 - p_gen).",
            p_gen * (1 - p_gen) * (weight - p_vocab): "the logarithm is missing: divide by P(w).",
            p_gen: "that holds only where the word cannot be written.",
            p_gen - 1: "that holds only where the word cannot be copied.",
        }
        for wrong, hint in hints.items():
            if math.isclose(found, wrong, abs_tol=1e-6):
                raise Mistake(hint)
        raise Mistake(
            f"for p_gen {p_gen}, P_vocab {p_vocab} and weight {weight} it is "
            f"{p_gen - wrote:.4f}, got {found:.4f}."
        )


@exercise
def replace_unknown(answer):
    """Check a function from an answer's words, the source's and the weights to words filled in."""
    source = ("Hooke", "beat", "Lew", "before", "Ford", "arrived")
    weights = torch.tensor(
        [[0.1, 0, 0.6, 0, 0.3, 0], [0, 0.9, 0.1, 0, 0, 0], [0.7, 0, 0.2, 0, 0, 0.1]]
    )
    for words, right in (
        (["<unk>", "beats", "<unk>"], ["Lew", "beats", "Hooke"]),
        (["beats", "<unk>", "<unk>"], ["beats", "beat", "Hooke"]),
        (["late", "is", "beats"], ["late", "is", "beats"]),
    ):
        found = list(answer(list(words), source, weights.clone()))
        if found == right:
            continue
        pointed = [source[i] for i in weights.argmax(-1)]
        unknown = iter([word for word in source if word != "beat"])
        in_order = [next(unknown) if word == "<unk>" else word for word in words]
        rows = iter(pointed)
        counted = [next(rows) if word == "<unk>" else word for word in words]
        first = source[int(weights.sum(0).argmax())]
        mistakes = {
            "only <unk> is replaced; the other words stay.": pointed,
            "that takes the names in the order of the source. Take the place with the largest "
            "weight.": in_order,
            "row t of the weights belongs to word t, whether the words before it are unknown or "
            "not.": counted,
            "each word has a row of weights of its own.": [
                first if word == "<unk>" else word for word in words
            ],
            "nothing was replaced yet.": words,
        }
        for hint, wrong in mistakes.items():
            if found == list(wrong):
                raise Mistake(hint)
        raise Mistake(f"{' '.join(words)} should become {' '.join(right)}, got {found}.")


@exercise
def label_log_probs(answer):
    """Check a function from parts, source and labels to the labels' log-probabilities."""
    rng = torch.Generator().manual_seed(0)
    source = torch.tensor([[11, 4, 12, 5, 12, 13, 6], [7, 11, 8, 4, 0, 0, 0]])
    labels = torch.tensor([[12, 5, 13, 4, 2], [11, 8, 4, 7, 2]])
    for size in (1.0, 1.0, 300.0):
        shapes = (2, 5, 11), (2, 5), (2, 5, 7)
        logits, gate, scores = (size * torch.randn(shape, generator=rng) for shape in shapes)
        right = _at(mixture(logits, gate, scores, source), labels)
        found = answer(logits, gate, scores, source, labels)
        if not isinstance(found, torch.Tensor) or found.shape != labels.shape:
            raise Mistake(f"the answer should be a tensor of shape {tuple(labels.shape)}.")
        if found.isnan().any() or found.isinf().any():
            if size > 1:
                raise Mistake(
                    "with large numbers it is not finite. Stay in logarithms to the end: "
                    "log_softmax, logsigmoid, logsumexp."
                )
            raise Mistake("it is not finite. Is a way that does not exist -inf, and one left?")
        if torch.allclose(found, right, atol=1e-3, rtol=1e-4):
            continue
        hidden = scores.masked_fill((source == 0)[:, None], -torch.inf)
        mistakes = {
            "the gate is the wrong way round: it is the logit of writing.": _at(
                mixture(logits, -gate, scores, source), labels
            ),
            "these are probabilities, not their logarithms.": right.exp(),
            "the sign: log-probabilities are not positive.": -right,
            "padding is pointed at. Hide it before the softmax.": _literal(
                logits, gate, scores, source, labels, every=True
            ),
            "a word may stand in several places, and all of them count.": _literal(
                logits, gate, hidden, source, labels, every=False
            ),
        }
        for hint, wrong in mistakes.items():
            if torch.allclose(found, wrong, atol=1e-4, rtol=1e-4):
                raise Mistake(hint)
        raise Mistake(
            f"for the first row it should be {[round(x, 2) for x in right[0].tolist()]}, "
            f"got {[round(x, 2) for x in found[0].tolist()]}."
        )


def _at(log_probs, labels):
    return log_probs.gather(-1, labels[..., None])[..., 0]


def _literal(logits, gate, scores, source, labels, *, every):
    """The mixture in probabilities; unless ``every``, only the first place of a word counts."""
    copied = (1 - gate.sigmoid())[..., None] * scores.softmax(-1)
    there = source[:, None] == labels[..., None]
    if not every:
        there &= there.int().cumsum(-1) == 1
    possible = labels < logits.shape[-1]
    index = labels.where(possible, 0)[..., None]
    written = gate.sigmoid() * logits.softmax(-1).gather(-1, index)[..., 0]
    return (written * possible + (copied * there).sum(-1)).log()
