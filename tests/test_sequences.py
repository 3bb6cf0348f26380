import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import unfold
from torch.testing import assert_close

from transformer_lit.data import digits, grammar
from transformer_lit.encoder_decoder import BEGIN, STOP, EncoderDecoder, Settings, target_vocabulary
from transformer_lit.sequences import (
    Box,
    iou,
    picture_tokens,
    precision_recall,
    read_boxes,
    read_labels,
    read_tree,
    write_boxes,
    write_labels,
    write_tree,
)
from transformer_lit.training import sequence_loss, teacher_forcing

NOUN_PHRASE = ("NP", ("DET", "a"), ("NOUN", "saw"))
TREE = ("S", ("NP", ("PRON", "i")), ("VP", ("VERB", "saw"), NOUN_PHRASE))
WORDS = ["i", "saw", "a", "saw"]
WRITTEN = ["(S", "(NP", "PRON", ")NP", "(VP", "VERB", "(NP", "DET", "NOUN", ")NP", ")VP", ")S"]
SIZE, N_BINS = 11, 23
SEVEN = Box(0, 2, 4, 5, "7")


def boxes(count: int, seed: int) -> list[Box]:
    """Boxes of whole edges on a canvas of SIZE, with one of three labels."""
    draws = np.random.RandomState(seed)

    def edges():
        return sorted(draws.choice(SIZE + 1, 2, replace=False).tolist())

    found = []
    for _ in range(count):
        (top, bottom), (left, right) = edges(), edges()
        found.append(Box(top, left, bottom, right, str(draws.randint(3))))
    return found


def pixels(box: Box) -> torch.Tensor:
    canvas = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    canvas[box.top : box.bottom, box.left : box.right] = True
    return canvas


# ---- hand-computed values


def test_a_tree_by_hand():
    assert write_tree(TREE) == WRITTEN
    assert read_tree(WRITTEN, WORDS) == TREE
    assert write_tree(("NOUN", "fish")) == ["NOUN"]
    assert read_tree(["NOUN"], ["fish"]) == ("NOUN", "fish")


def test_label_sets_by_hand():
    assert write_labels(["7", "2", "7"], "0123456789") == ["2", "7"]
    assert write_labels(["7", "2"], "9876543210") == ["7", "2"]
    assert write_labels([], "01") == [] and read_labels([], "01") == set()
    assert read_labels(["7", "2", "7"], "0123456789") == {"2", "7"}


def test_boxes_by_hand():
    assert write_boxes([SEVEN], size=11, n_bins=12) == ["@0", "@2", "@4", "@5", "7"]
    assert write_boxes([SEVEN], size=11, n_bins=23) == ["@0", "@4", "@8", "@10", "7"]
    # With 6 bins an edge is rounded to the nearest of 0, 2.2, 4.4, 6.6, 8.8 and 11.
    assert write_boxes([SEVEN], size=11, n_bins=6) == ["@0", "@1", "@2", "@2", "7"]
    (read,) = read_boxes(["@0", "@1", "@2", "@2", "7"], size=11, n_bins=6)
    assert_close(read[:4], (0.0, 2.2, 4.4, 4.4))
    assert read.label == "7"
    assert write_boxes([], size=11, n_bins=12) == [] == read_boxes([], size=11, n_bins=12)


def test_the_overlap_by_hand():
    assert iou(SEVEN, SEVEN) == 1
    assert iou(SEVEN, Box(0, 2, 2, 5, "7")) == 0.5
    assert iou(SEVEN, Box(2, 2, 6, 5, "3")) == 6 / 18
    assert iou(SEVEN, Box(4, 2, 5, 5, "7")) == 0  # they touch
    assert iou(SEVEN, Box(7, 7, 9, 9, "7")) == 0


def test_precision_and_recall_by_hand():
    truth = [[SEVEN, Box(6, 6, 10, 10, "3")], [Box(1, 1, 3, 3, "5")]]
    found = [[SEVEN, SEVEN, Box(6, 6, 10, 10, "8")], [Box(1, 1, 3, 2, "5")]]
    assert precision_recall(found, truth) == (2 / 4, 2 / 3)
    assert precision_recall(found, truth, threshold=0.51) == (1 / 4, 1 / 3)
    assert precision_recall([[], []], truth) == (0, 0)


def test_a_picture_by_hand():
    picture = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    # Digits 1, 0, 0, 1 with the smallest first are 1 + 8; one is added.
    assert picture_tokens(picture[None], patch=2, levels=2).tolist() == [[10, 1]]
    assert picture_tokens(picture[None], patch=1, levels=2).tolist() == [[2, 1, 1, 1, 1, 2, 1, 1]]
    grey = torch.tensor([[[0.2, 0.6, 1.0]]])
    assert picture_tokens(grey, patch=1, levels=3).tolist() == [[1, 2, 3]]


# ---- properties


def test_every_tree_of_the_grammar_comes_back():
    for sentence, _ in grammar.language()[::97]:
        assert read_tree(write_tree(sentence.tree), sentence.words) == sentence.tree


def test_boxes_come_back_up_to_half_a_bin():
    some = boxes(29, seed=0)
    assert read_boxes(write_boxes(some, size=SIZE, n_bins=N_BINS), size=SIZE, n_bins=N_BINS) == some
    for n_bins in (13, 41):
        half = SIZE / (n_bins - 1) / 2 + 1e-9
        read = read_boxes(write_boxes(some, size=SIZE, n_bins=n_bins), size=SIZE, n_bins=n_bins)
        for box, other in zip(some, read, strict=True):
            assert box.label == other.label
            assert all(abs(a - b) <= half for a, b in zip(box[:4], other[:4], strict=True))


def test_the_order_of_a_label_set_does_not_matter_to_its_reader():
    labels = ["2", "3", "5"]
    for order in itertools.permutations(labels):
        assert read_labels(write_labels(labels, order), labels) == set(labels)
        assert write_labels(reversed(labels), order) == list(order)


def test_the_overlap_is_symmetric_and_lies_between_0_and_1():
    for a, b in itertools.pairwise(boxes(97, seed=1)):
        assert iou(a, b) == iou(b, a)
        assert 0 <= iou(a, b) <= 1


def test_a_box_moved_with_its_picture_has_the_same_overlap():
    a, b = boxes(2, seed=3)
    moved = [Box(*(edge + 1000 for edge in box[:4]), box.label) for box in (a, b)]
    assert_close(iou(*moved), iou(a, b))


def test_different_pictures_get_different_ids():
    every = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=4))).view(-1, 2, 2)
    ids = picture_tokens(every, patch=2, levels=3)[:, 0]
    assert sorted(ids.tolist()) == list(range(1, 82))


def test_pictures_do_not_see_one_another():
    pictures = torch.rand(3, 10, 14)
    ids = picture_tokens(pictures, patch=2, levels=2)
    assert ids.shape == (3, 35)
    for picture, row in zip(pictures, ids, strict=True):
        assert torch.equal(picture_tokens(picture[None], patch=2, levels=2)[0], row)


# ---- agreement


def test_agrees_with_the_bracketed_trees_of_the_grammar():
    for sentence, _ in grammar.language()[::997]:
        text = grammar.bracketed(sentence.tree)
        for tag, word in zip(sentence.tags, sentence.words, strict=True):
            text = text.replace(f"({tag} {word})", tag, 1)
        ours = " ".join(write_tree(sentence.tree))
        assert text.replace("(", "").replace(")", "").split() == [
            symbol.lstrip("(") for symbol in ours.split() if not symbol.startswith(")")
        ]
        assert text.count(")") == sum(symbol.startswith(")") for symbol in ours.split())


def test_the_overlap_agrees_with_counted_pixels():
    for a, b in itertools.pairwise(boxes(53, seed=2)):
        one, other = pixels(a), pixels(b)
        assert_close(iou(a, b), float((one & other).sum() / (one | other).sum()))


def test_a_match_agrees_with_the_best_of_all_where_true_boxes_are_apart():
    truth = [Box(0, 0, 5, 5, "2"), Box(0, 6, 5, 11, "2"), Box(6, 0, 11, 5, "3")]
    for seed in range(31):
        found = boxes(3, seed=seed)
        most = max(
            sum(f.label == t.label and iou(f, t) >= 0.2 for f, t in zip(order, truth, strict=True))
            for order in itertools.permutations(found)
        )
        assert precision_recall([found], [truth], threshold=0.2)[1] == most / 3


def test_patches_agree_with_the_unfold_of_pytorch():
    pictures = torch.from_numpy(digits.load("test")[0][:7])
    squares = unfold((pictures * 2).round()[:, None], kernel_size=2, stride=2)
    expected = 1 + torch.einsum("bps,p->bs", squares, torch.tensor([1.0, 3, 9, 27]))
    assert torch.equal(picture_tokens(pictures, patch=2, levels=3), expected.long())


# ---- gradients


def test_every_kind_of_sequence_gives_the_unchanged_model_gradients():
    tags = target_vocabulary(WRITTEN)
    bins = target_vocabulary([*(f"@{place}" for place in range(N_BINS)), "7"])
    texts = {
        "tree": (tags, WRITTEN),
        "box": (bins, write_boxes([SEVEN], size=SIZE, n_bins=N_BINS)),
    }
    source = picture_tokens(torch.rand(1, 6, 10), patch=2, levels=2)
    for name, (vocabulary, text) in texts.items():
        sizes = {"d_model": 14, "n_heads": 7, "n_layers": 1, "d_ff": 13}
        model = EncoderDecoder(Settings(source_size=17, target_size=len(vocabulary), **sizes))
        shown, labels = teacher_forcing(vocabulary.encode([BEGIN, *text, STOP])[None])
        sequence_loss(model(source, shown), labels).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients), name
        assert all(model.source_embedding.weight.grad[i].any() for i in source[0]), name


# ---- bad input


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("(S (NP PRON )NP (VP VERB (NP DET NOUN )NP )VP", "'S' is never closed"),
        ("(S (NP PRON )NP )S )S", "')S' at place 5 closes nothing"),
        (")S", "')S' at place 0 closes nothing"),
        (")", "at place 0 closes nothing"),
        ("(S (NP PRON )S )NP", "')S' at place 3 closes NP"),
        ("(S (NP )NP PRON VERB DET NOUN )S", "')NP' at place 2 closes an empty phrase"),
        ("", "one tree above all, got 0"),
        ("PRON VERB DET NOUN", "one tree above all, got 4"),
        ("(NP PRON )NP (VP VERB DET NOUN )VP", "one tree above all, got 2"),
        ("(S PRON VERB )S", "4 words, but tags for 2"),
        ("(S PRON VERB DET NOUN NOUN )S", "'NOUN' at place 5: there are only 4 words"),
    ],
)
def test_a_malformed_tree_is_refused(written, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        read_tree(written.split(), WORDS)


@pytest.mark.parametrize("tree", [("S",), ("S", ("NP",))])
def test_a_tree_with_nothing_below_a_label_is_refused(tree):
    with pytest.raises(ValueError, match="nothing below"):
        write_tree(tree)


def test_unknown_labels_are_refused():
    with pytest.raises(ValueError, match=r"unknown labels \['x'\]"):
        write_labels(["1", "x"], "012")
    with pytest.raises(ValueError, match=r"unknown labels \['7', '9'\]"):
        read_labels(["9", "1", "7"], "012")


@pytest.mark.parametrize(
    "box",
    [
        Box(-1, 0, 4, 4, "7"),
        Box(0, 0, 4, 12, "7"),
        Box(0, 0, 12, 4, "7"),
        Box(0, -1, 4, 4, "7"),
        Box(4, 0, 4, 4, "7"),
        Box(0, 5, 4, 4, "7"),
        Box(0, math.nan, 4, 4, "7"),
        Box(0, 0, 4, math.inf, "7"),
    ],
)
def test_a_box_that_is_empty_or_off_the_canvas_is_refused(box):
    with pytest.raises(ValueError, match="is empty or not on a canvas of 11 by 11"):
        write_boxes([SEVEN, box], size=SIZE, n_bins=N_BINS)


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ("@0 @1 @4 @5", "5 symbols, got 4"),
        ("@0 @1 @4 @5 7 @0", "5 symbols, got 6"),
        ("@0 @1 @4 @23 7", "no four bins below 23"),
        ("@0 @1 @4 7 @5", "no four bins"),
        ("@0 @1 @4 @5 @6", "no four bins"),
        ("@0 @1 @-4 @5 7", "no four bins"),
        ("@4 @1 @4 @5 7", "is empty"),
        ("@0 @6 @4 @5 7", "is empty"),
        ("7 7 7 7 7", "no four bins"),
    ],
)
def test_malformed_boxes_are_refused(symbols, message):
    with pytest.raises(ValueError, match=message):
        read_boxes(symbols.split(), size=SIZE, n_bins=N_BINS)


@pytest.mark.parametrize(("size", "n_bins"), [(0, 5), (-1, 5), (11, 1)])
def test_a_canvas_without_size_or_bins_is_refused(size, n_bins):
    for call in (write_boxes, read_boxes):
        with pytest.raises(ValueError, match=f"got {size} and {n_bins}"):
            call([], size=size, n_bins=n_bins)


def test_there_must_be_true_boxes_and_a_list_for_each_picture():
    with pytest.raises(ValueError, match="got 0 true boxes in 1 pictures"):
        precision_recall([[SEVEN]], [[]])
    with pytest.raises(ValueError, match="in 1 pictures, 2 pictures with boxes found"):
        precision_recall([[SEVEN], []], [[SEVEN]])


@pytest.mark.parametrize(
    ("picture", "patch", "levels", "message"),
    [
        (torch.zeros(1, 5, 4), 2, 2, "5 by 4 pixels cannot be cut into squares of 2"),
        (torch.zeros(1, 4, 7), 2, 2, "4 by 7 pixels"),
        (torch.full((1, 4, 4), 1.5), 2, 2, r"must lie in 0 \.\. 1"),
        (torch.full((1, 4, 4), -0.1), 2, 2, r"must lie in 0 \.\. 1"),
        (torch.full((1, 4, 4), math.nan), 2, 2, r"must lie in 0 \.\. 1"),
        (torch.zeros(1, 4, 4), 0, 2, "got 0 and 2"),
        (torch.zeros(1, 4, 4), 2, 1, "got 2 and 1"),
    ],
)
def test_a_picture_that_cannot_be_cut_or_read_is_refused(picture, patch, levels, message):
    with pytest.raises(ValueError, match=message):
        picture_tokens(picture, patch=patch, levels=levels)


# ---- broken on purpose


def test_patches_cut_without_moving_the_axes_are_caught():
    pictures = torch.rand(3, 4, 6)
    cut = (pictures.round().long()).reshape(3, 6, 4)  # four pixels in a row, not a square
    broken = 1 + (cut * 2 ** torch.arange(4)).sum(-1)
    assert not torch.equal(broken, picture_tokens(pictures, patch=2, levels=2))


def test_a_true_box_that_may_be_found_twice_is_caught():
    found, truth = [[SEVEN, SEVEN]], [[SEVEN]]
    both = sum(any(iou(f, t) >= 0.5 for t in truth[0]) for f in found[0]) / 2
    assert both == 1 > precision_recall(found, truth)[0] == 0.5


def test_brackets_that_are_only_counted_miss_a_wrong_label():
    crossed = ["(S", "(NP", "PRON", ")S", ")NP"]
    depth = sum((s[0] == "(") - (s[0] == ")") for s in crossed)
    assert depth == 0
    with pytest.raises(ValueError, match="closes NP"):
        read_tree(crossed, ["i"])
