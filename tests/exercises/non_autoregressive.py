"""Answers to the exercises of chapter 15."""

import math

import torch

from transformer_lit.exercises import non_autoregressive as check
from transformer_lit.non_autoregressive import mask_predict

RIGHT, WRONG = {}, {}

# ---- mixed

RIGHT[check.mixed] = [lambda k: (2**k - 2) / 2**k]

WRONG[check.mixed] = [
    (lambda k: 2 ** (1 - k), "the share of right answers"),
    (lambda k: 1 - 2**-k, "two of the 2 ** k"),
    (lambda k: 2**-k, "of one of the two"),
    (lambda k: 2**k - 2, "how many mixtures"),
    (lambda k: 0.1, "it is 0.7500, got 0.1000"),
]


# ---- excess

RIGHT[check.excess] = [lambda k: (k - 1) * math.log(2)]

WRONG[check.excess] = [
    (lambda k: k * math.log(2), "that is the loss itself"),
    (lambda k: math.log(2), "what no model can know"),
    (lambda k: k - 1, "that is in bits"),
    (lambda k: (1 - k) * math.log(2), "the sign"),
    (lambda k: (k + 1) * math.log(2), "subtract"),
    (lambda k: 0.1, "it is 1.3863 nats, got 0.1000"),
]


# ---- hidden

RIGHT[check.hidden] = [lambda n, t, n_passes: int(n * (n_passes - t + 1) / n_passes)]

WRONG[check.hidden] = [
    (lambda n, t, T: n * (T - t) // T, "pass 1 hides all"),
    (lambda n, t, T: n - n * (T - t + 1) // T, "how many stay"),
    (lambda n, t, T: n * t // T if t < T else 1, "fewer from pass to pass"),
    (lambda n, t, T: math.ceil(n * (T - t + 1) / T), "round down"),
    (lambda n, t, T: n * (T - t + 1) / T, "round down"),
    (lambda n, t, T: 1, "pass 2 of 3 hides 4 of 7 symbols, got 1"),
]


# ---- best_length


def tried(model, source, n_lengths, score=torch.mean, shift=1, keep=max):
    memory, mask = model.encode(source)
    told = model.length_logits(memory, mask)[:, shift:].topk(n_lengths).indices + shift
    answers = []
    for row in range(len(source)):
        found = []
        for length in told[row]:
            here, n = source[row : row + 1], int(length)
            inputs = torch.ones(1, max(1, n), dtype=torch.long)
            logits = model.fill(inputs, *model.encode(here), torch.tensor([n]))[0, :n, 3:]
            log_probs, tokens = logits.log_softmax(-1).max(-1)
            if n:
                found.append((float(score(log_probs)), (tokens + 3).tolist()))
        answers.append(torch.tensor(keep(found)[1]))
    return answers


RIGHT[check.best_length] = [tried]

WRONG[check.best_length] = [
    (lambda *a: tried(*a, score=torch.sum), "prefers short answers"),
    (lambda *a: tried(*a, keep=min), "keeps the worst"),
    (lambda *a: tried(*a, shift=0) if a[2] > 1 else tried(*a), "leave it out"),
    (lambda model, source, n: mask_predict(model, source), "only the likeliest"),
    (lambda model, source, n: tried(model, source, 16), "all lengths were tried"),
    (lambda model, source, n: source[:3], "there should be 13 answers, got 3"),
    (lambda model, source, n: source, "with 1 lengths, answer 0 should be"),
]
