"""Answers to the exercises of chapter 08."""

import torch

from transformer_lit.exercises import masking as check
from transformer_lit.masking import causal_mask, local_mask

RIGHT, WRONG = {}, {}

# ---- pairs

RIGHT[check.pairs] = [lambda seq, window: sum(min(i, window) + 1 for i in range(seq))]

WRONG[check.pairs] = [
    (lambda n, w: int(local_mask(n, w).sum()), "window on both sides"),
    (lambda n, w: sum(min(i, w) for i in range(n)), "may attend to itself too."),
    (lambda n, w: n * (w + 1), "the first positions have fewer"),
    (lambda n, w: n * w, "itself too, and the first ones"),
    (lambda n, w: n * (n + 1) // 2, "without the window"),
    (lambda n, w: 2, "it is 18, got 2"),
]


# ---- prefix_mask


def open_columns(prefix, seq):
    return causal_mask(seq) | (torch.arange(seq) < prefix)


RIGHT[check.prefix_mask] = [open_columns]

WRONG[check.prefix_mask] = [
    (lambda p, n: ~open_columns(p, n), "this is the inverse"),
    (lambda p, n: causal_mask(n), "does not see itself whole"),
    (lambda p, n: causal_mask(n) | (torch.arange(n) < p)[:, None], "not its rows"),
    (lambda p, n: causal_mask(n) & (torch.arange(n) < p), "it takes | here"),
    (lambda p, n: open_columns(p + 1, n), "belongs to the rest"),
    (lambda p, n: (torch.arange(n) < p).expand(1, 1, n, n), "behind the prefix"),
    (lambda p, n: open_columns(p, n).float(), "of torch.bool, got torch.float32"),
    (lambda p, n: open_columns(p, n)[0, 0], "should be (1, 1, 7, 7), got (7, 7)"),
    (lambda p, n: [[True]], "got list"),
    (lambda p, n: torch.ones(1, 1, n, n, dtype=torch.bool), "row 0 should be [1, 1, 1, 0"),
]


# ---- reach


def power(mask, n_layers, residual=True):
    one = mask | torch.eye(len(mask), dtype=torch.bool) if residual else mask
    return torch.linalg.matrix_power(one.float(), n_layers) > 0


RIGHT[check.reach] = [power]

WRONG[check.reach] = [
    (lambda mask, n: power(mask, n, residual=False), "always reaches itself"),
    (lambda mask, n: power(mask, 1), "what one layer does, and there are 2"),
    (lambda mask, n: power(mask, n + 1), "one layer too many"),
    (lambda mask, n: power(mask, n).T, "transposed"),
    (lambda mask, n: power(mask, n).float(), "should be booleans, got torch.float32"),
    (lambda mask, n: power(mask, n)[0], "of shape (7, 7)"),
    (lambda mask, n: torch.ones_like(mask), "reached from [2, 3, 4, 5, 6]"),
]


# ---- leaks


def leaks(model, x, cuts=None, close=torch.equal, kept=0):
    """Change everything from each cut on; ``kept`` is how many changed places are compared too."""
    for cut in cuts or range(1, x.shape[1]):
        other = x.clone()
        other[:, cut:] = torch.randn_like(other[:, cut:])
        if not close(model(x)[:, : cut + kept], model(other)[:, : cut + kept]):
            return True
    return False


RIGHT[check.leaks] = [leaks]


def in_place(model, x):
    found = leaks(model, x)
    x[:, -1] = 0
    return found


WRONG[check.leaks] = [
    (lambda model, x: leaks(model, x, kept=1), "before the first one that you changed"),
    (lambda model, x: True, "before the first one that you changed"),
    (lambda model, x: not leaks(model, x), "True for a model that leaks"),
    (lambda model, x: False, "no leak was found"),
    (lambda model, x: leaks(model, x, cuts=[6]), "only position 0 sees position 1"),
    (lambda model, x: leaks(model, x, cuts=[1]), "only position 3 sees position 4"),
    (
        lambda model, x: leaks(model, x, close=lambda a, b: torch.allclose(a, b, atol=1e-2)),
        "a faint leak was missed",
    ),
    (in_place, "x.clone()"),
]
