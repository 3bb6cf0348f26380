"""Each check of chapter 08: the stub is not yet, the solution passes, a mistake gets its hint."""

import pytest
import torch

from tests.verdicts import refused, stub
from transformer_lit.exercises import masking as check
from transformer_lit.masking import causal_mask, local_mask


def test_what_is_unwritten_is_not_yet():
    verdicts = (
        check.pairs(stub),
        check.prefix_mask(stub),
        check.reach(stub),
        check.leaks(stub),
    )
    for verdict in verdicts:
        assert not verdict and str(verdict).startswith("Not yet: ")


# ---- pairs


def test_the_count_of_pairs_passes():
    assert check.pairs(lambda seq, window: sum(min(i, window) + 1 for i in range(seq)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, w: int(local_mask(n, w).sum()), "window on both sides"),
        (lambda n, w: sum(min(i, w) for i in range(n)), "may attend to itself too."),
        (lambda n, w: n * (w + 1), "the first positions have fewer"),
        (lambda n, w: n * w, "itself too, and the first ones"),
        (lambda n, w: n * (n + 1) // 2, "without the window"),
        (lambda n, w: 2, "it is 18, got 2"),
    ],
)
def test_a_wrong_count_of_pairs_gets_its_hint(answer, hint):
    refused(check.pairs(answer), hint)


# ---- prefix_mask


def open_columns(prefix, seq):
    return causal_mask(seq) | (torch.arange(seq) < prefix)


def test_the_prefix_mask_passes():
    assert check.prefix_mask(open_columns)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_a_wrong_prefix_mask_gets_its_hint(answer, hint):
    refused(check.prefix_mask(answer), hint)


# ---- reach


def power(mask, n_layers, residual=True):
    one = mask | torch.eye(len(mask), dtype=torch.bool) if residual else mask
    return torch.linalg.matrix_power(one.float(), n_layers) > 0


def test_what_has_reached_whom_passes():
    assert check.reach(power)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda mask, n: power(mask, n, residual=False), "always reaches itself"),
        (lambda mask, n: power(mask, 1), "what one layer does, and there are 2"),
        (lambda mask, n: power(mask, n + 1), "one layer too many"),
        (lambda mask, n: power(mask, n).T, "transposed"),
        (lambda mask, n: power(mask, n).float(), "should be booleans, got torch.float32"),
        (lambda mask, n: power(mask, n)[0], "of shape (7, 7)"),
        (lambda mask, n: torch.ones_like(mask), "reached from [2, 3, 4, 5, 6]"),
    ],
)
def test_a_wrong_reach_gets_its_hint(answer, hint):
    refused(check.reach(answer), hint)


# ---- leaks


def leaks(model, x, cuts=None, close=torch.equal, kept=0):
    """Change everything from each cut on; ``kept`` is how many changed places are compared too."""
    for cut in cuts or range(1, x.shape[1]):
        other = x.clone()
        other[:, cut:] = torch.randn_like(other[:, cut:])
        if not close(model(x)[:, : cut + kept], model(other)[:, : cut + kept]):
            return True
    return False


def test_a_test_of_leaks_passes():
    assert check.leaks(leaks)


def in_place(model, x):
    found = leaks(model, x)
    x[:, -1] = 0
    return found


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
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
    ],
)
def test_a_wrong_test_of_leaks_gets_its_hint(answer, hint):
    refused(check.leaks(answer), hint)
