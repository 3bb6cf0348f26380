import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer_lit.window import WindowClassifier, windows

# Sizes are different primes: a swapped axis cannot fit.
VOCAB, CLASSES, D_MODEL, D_HIDDEN, BATCH, SEQ = 29, 11, 5, 13, 3, 7


def classifier(width: int) -> WindowClassifier:
    return WindowClassifier(
        vocab_size=VOCAB, n_classes=CLASSES, width=width, d_model=D_MODEL, d_hidden=D_HIDDEN
    )


def tokens() -> torch.Tensor:
    return torch.randint(1, VOCAB, (BATCH, SEQ))


# ---- hand-computed values


def test_windows_by_hand():
    seen = windows(torch.tensor([[3, 1, 20]]), 3)
    assert seen.tolist() == [[[0, 3, 1], [3, 1, 20], [1, 20, 0]]]


def test_windows_wider_than_the_sequence_are_mostly_padding():
    seen = windows(torch.tensor([[3, 1]]), 7)
    assert seen.tolist() == [[[0, 0, 0, 3, 1, 0, 0], [0, 0, 3, 1, 0, 0, 0]]]


def test_a_window_of_one_is_the_symbol_itself():
    ids = tokens()
    assert torch.equal(windows(ids, 1), ids[..., None])


def test_the_classifier_by_hand():
    """One number per symbol, one hidden unit: relu(2 left + 3 middle + 5 right - 1), doubled."""
    model = WindowClassifier(vocab_size=4, n_classes=1, width=3, d_model=1, d_hidden=1)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0], [2.0]]))
        model.hidden.weight.copy_(torch.tensor([[2.0, 3.0, 5.0]]))
        model.hidden.bias.fill_(-1)
        model.output.weight.fill_(2)
        model.output.bias.fill_(7)
    # Symbols 1, 2, 3 are the numbers 1, -1, 2, with 0 on both sides.
    # 3 - 5 - 1 = -3 -> 0;   2 - 3 + 10 - 1 = 8;   -2 + 6 - 1 = 3
    assert model(torch.tensor([[1, 2, 3]])).tolist() == [[[7.0], [23.0], [13.0]]]


@pytest.mark.parametrize("width", [1, 3, 17])
def test_parameters_grow_by_the_same_amount_with_each_symbol(width):
    counted = sum(p.numel() for p in classifier(width).parameters())
    fixed = VOCAB * D_MODEL + D_HIDDEN + D_HIDDEN * CLASSES + CLASSES
    assert counted == fixed + width * D_MODEL * D_HIDDEN


# ---- properties


def test_the_middle_of_every_window_is_the_sequence():
    ids = tokens()
    assert torch.equal(windows(ids, 5)[..., 2], ids)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_an_answer_depends_on_its_window_and_on_nothing_outside(width):
    model, ids = classifier(width), tokens()
    before = model(ids)
    for changed in range(SEQ):
        other = ids.clone()
        other[:, changed] = ids[:, changed] % (VOCAB - 1) + 1
        same = (model(other) == before).all(-1).all(0)
        far = (torch.arange(SEQ) - changed).abs() > width // 2
        assert torch.equal(same, far)


def test_same_input_same_output_at_width_one():
    model = classifier(1)
    logits = model(torch.tensor([[2, 3, 5, 3]]))
    assert_close(logits[0, 1], logits[0, 3])
    assert (logits[0, 1] - logits[0, 2]).abs().max() > 1e-3


def test_the_order_within_the_window_counts():
    model = classifier(3)
    left, right = model(torch.tensor([[2, 3, 5]])), model(torch.tensor([[5, 3, 2]]))
    assert (left[0, 1] - right[0, 1]).abs().max() > 1e-3


def test_padding_at_the_end_changes_nothing():
    model, ids = classifier(5), tokens()
    padded = nn.functional.pad(ids, (0, 3))
    assert_close(model(padded)[:, :SEQ], model(ids))


# ---- agreement with PyTorch


def test_agrees_with_a_convolution():
    """A window classifier is a convolution over the sequence: same weights, same numbers."""
    width, model, ids = 5, classifier(5), tokens()
    conv = nn.Conv1d(D_MODEL, D_HIDDEN, width)
    with torch.no_grad():
        # ours joins (width, d_model), PyTorch's kernel is (d_model, width)
        conv.weight.copy_(model.hidden.weight.view(D_HIDDEN, width, D_MODEL).transpose(1, 2))
        conv.bias.copy_(model.hidden.bias)
    embedded = model.embedding(nn.functional.pad(ids, (2, 2))).transpose(1, 2)
    expected = model.output(conv(embedded).relu().transpose(1, 2))
    assert_close(model(ids), expected)


def test_the_convolution_with_its_axes_swapped_disagrees():
    width, model, ids = 5, classifier(5), tokens()
    conv = nn.Conv1d(D_MODEL, D_HIDDEN, width)
    with torch.no_grad():
        conv.weight.copy_(model.hidden.weight.view(D_HIDDEN, D_MODEL, width))
        conv.bias.copy_(model.hidden.bias)
    embedded = model.embedding(nn.functional.pad(ids, (2, 2))).transpose(1, 2)
    broken = model.output(conv(embedded).relu().transpose(1, 2))
    assert (model(ids) - broken).abs().max() > 1e-2


# ---- gradients


def test_every_parameter_gets_a_gradient():
    model, ids = classifier(3), tokens()
    model(ids).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_only_symbols_in_the_window_get_a_gradient():
    model = classifier(3)
    model(torch.tensor([[2, 3, 5, 7, 11]]))[0, 1].sum().backward()
    moved = model.embedding.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert set(moved) <= {2, 3, 5} and moved


# ---- bad input


@pytest.mark.parametrize("width", [-1, 0, 2, 4])
def test_a_width_without_a_middle_is_refused(width):
    with pytest.raises(ValueError, match=f"width must be odd and at least 1, got {width}"):
        windows(tokens(), width)
    with pytest.raises(ValueError, match=f"width must be odd and at least 1, got {width}"):
        classifier(width)


@pytest.mark.parametrize("sizes", [{"n_classes": 0}, {"d_hidden": 0}, {"n_classes": -2}])
def test_sizes_below_one_are_refused(sizes):
    arguments = {"n_classes": CLASSES, "d_hidden": D_HIDDEN} | sizes
    expected = "got {n_classes} and {d_hidden}".format(**arguments)
    with pytest.raises(ValueError, match=expected):
        WindowClassifier(vocab_size=VOCAB, d_model=D_MODEL, width=3, **arguments)


@pytest.mark.parametrize("sizes", [{"vocab_size": 0}, {"d_model": 0}])
def test_an_empty_embedding_is_refused(sizes):
    arguments = {"vocab_size": VOCAB, "d_model": D_MODEL} | sizes
    expected = "vocab_size and d_model must be at least 1, got {vocab_size} and {d_model}"
    with pytest.raises(ValueError, match=expected.format(**arguments)):
        WindowClassifier(n_classes=CLASSES, d_hidden=D_HIDDEN, width=3, **arguments)


@pytest.mark.parametrize("bad", [-1, VOCAB])
def test_ids_outside_the_vocabulary_are_refused(bad):
    with pytest.raises(ValueError, match=rf"ids must lie in 0 \.\. {VOCAB - 1}, got .*{bad}"):
        classifier(3)(torch.tensor([[2, bad, 3]]))


def test_one_sequence_without_a_batch_axis_is_refused(unchecked_shapes):
    with pytest.raises(ValueError, match=rf"tokens must be \(batch, seq\).* got shape \({SEQ},\)"):
        classifier(3)(torch.randint(1, VOCAB, (SEQ,)))


@pytest.mark.parametrize("shape", [(0, SEQ), (BATCH, 0)])
def test_nothing_to_classify_is_refused(shape):
    with pytest.raises(ValueError, match=rf"not empty, got shape \({shape[0]}, {shape[1]}\)"):
        classifier(3)(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_ids_that_are_no_integers_are_refused(unchecked_shapes, dtype):
    with pytest.raises(ValueError, match=f"ids must be integers, got {dtype}"):
        windows(torch.ones(BATCH, SEQ, dtype=dtype), 3)
