"""Answers to the exercises of chapter 16."""

import torch
import torch.nn.functional as F

from transformer_lit.exercises import copying as check

RIGHT, WRONG = {}, {}

# ---- was_copied


def was_copied(p_gen, p_vocab, weights):
    copied = (1 - p_gen) * sum(weights)
    return copied / (p_gen * p_vocab + copied)


RIGHT[check.was_copied] = [was_copied]

WRONG[check.was_copied] = [
    (lambda g, p, a: (1 - g) * sum(a), "divide by P(w)"),
    (lambda g, p, a: 1 - g, "before you saw which word"),
    (lambda g, p, a: g * p / (g * p + (1 - g) * sum(a)), "that it was written"),
    (lambda g, p, a: sum(a) / (p + sum(a)), "not equally likely"),
    (lambda g, p, a: g * p + (1 - g) * sum(a), "P(w) itself"),
    (
        lambda g, p, a: (1 - g) * sum(a[:1]) / (g * p + (1 - g) * sum(a[:1])),
        "more than one place",
    ),
    (lambda g, p, a: 0.5, "it is 0.6000, got 0.5000"),
]


# ---- gate_gradient


def mixed(g, p, a):
    return g * p + (1 - g) * a


def by_autograd(p_gen, p_vocab, weight):
    gate = torch.tensor(p_gen, dtype=torch.float64).logit().requires_grad_()
    (-mixed(gate.sigmoid(), p_vocab, weight).log()).backward()
    return gate.grad


RIGHT[check.gate_gradient] = [lambda g, p, a: g - g * p / mixed(g, p, a), by_autograd]

WRONG[check.gate_gradient] = [
    (lambda g, p, a: g * p / mixed(g, p, a) - g, "the other sign"),
    (lambda g, p, a: (a - p) / mixed(g, p, a), "through a sigmoid"),
    (lambda g, p, a: g * (1 - g) * (a - p), "divide by P(w)"),
    (lambda g, p, a: g, "cannot be written"),
    (lambda g, p, a: g - 1, "cannot be copied"),
    (lambda g, p, a: 7.0, "got 7.0000"),
]


# ---- replace_unknown


def fill(words, source, weights):
    best = weights.argmax(-1)
    return [source[i] if word == "<unk>" else word for word, i in zip(words, best, strict=True)]


def in_order(words, source, weights):
    names = iter([word for word in source if word[0].isupper()])
    return [next(names) if word == "<unk>" else word for word in words]


def counted(words, source, weights):
    places = iter(weights.argmax(-1))
    return [source[next(places)] if word == "<unk>" else word for word in words]


RIGHT[check.replace_unknown] = [fill]

WRONG[check.replace_unknown] = [
    (lambda w, s, a: [s[i] for i in a.argmax(-1)], "the other words stay"),
    (in_order, "in the order of the source"),
    (counted, "whether the words before it"),
    (
        lambda w, s, a: [s[a.sum(0).argmax()] if x == "<unk>" else x for x in w],
        "a row of weights of its own",
    ),
    (lambda w, s, a: w, "nothing was replaced"),
    (lambda w, s, a: ["who"] * 3, "should become Lew beats Hooke"),
]


# ---- label_log_probs


def stable(logits, gate, scores, source, labels):
    scores = scores.masked_fill((source == 0)[:, None], -torch.inf)
    copy = F.logsigmoid(-gate)[..., None] + scores.log_softmax(-1)
    copy = copy.masked_fill(source[:, None] != labels[..., None], -torch.inf)
    write = F.logsigmoid(gate)[..., None] + logits.log_softmax(-1)
    write = F.pad(write, (0, 3), value=-torch.inf).gather(-1, labels[..., None])
    return torch.cat([write, copy], -1).logsumexp(-1)


def product(logits, gate, scores, source, labels, *, hide=True, several=True):
    if hide:
        scores = scores.masked_fill((source == 0)[:, None], -torch.inf)
    copy = (1 - gate.sigmoid())[..., None] * scores.softmax(-1)
    there = source[:, None] == labels[..., None]
    if not several:
        there = there & (there.int().cumsum(-1) == 1)
    write = F.pad(gate.sigmoid()[..., None] * logits.softmax(-1), (0, 3))
    return (write.gather(-1, labels[..., None])[..., 0] + (copy * there).sum(-1)).log()


RIGHT[check.label_log_probs] = [stable]

WRONG[check.label_log_probs] = [
    (product, "with large numbers it is not finite"),
    (lambda lo, g, *rest: stable(lo, -g, *rest), "wrong way round"),
    (lambda *parts: stable(*parts).exp(), "not their logarithms"),
    (lambda *parts: -stable(*parts), "the sign"),
    (lambda *parts: product(*parts, hide=False), "padding is pointed at"),
    (lambda *parts: product(*parts, several=False), "several places"),
    (lambda *parts: 7.0, "of shape (2, 5)"),
    (lambda *parts: torch.zeros(2, 5), "for the first row"),
    (lambda *parts: torch.full((2, 5), torch.nan), "it is not finite. Is a way"),
]
