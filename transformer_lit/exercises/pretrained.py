"""The checks of chapter 21, a real encoder."""

import math

import torch

from transformer_lit.exercises import Mistake, exercise
from transformer_lit.pretrained import UNUSED, BertEncoder, Settings, names


@exercise
def parameters(answer):
    """Check a function from a BERT encoder's sizes to its number of parameters."""
    for v, m, d, f, n in ((31, 11, 7, 13, 3), (17, 5, 2, 3, 1)):
        settings = Settings(vocab_size=v, max_len=m, d_model=d, n_heads=1, d_ff=f, n_layers=n)
        right = sum(parameter.numel() for parameter in BertEncoder(settings).parameters())
        found = answer(v, m, d, f, n)
        if found == right:
            continue
        hints = {
            right - 2 * d: "there are two segments with a vector each, and a norm before the "
            "first block with a gain and a bias. One of these is missing.",
            right - 4 * d: "two things are missing before the first block: the two segments' "
            "vectors, and the norm.",
            right + 2 * d: "that is one norm too many: behind the last block there is none.",
            right - m * d: "places have a table of their own, one row for each.",
            right - v * d: "the largest table is missing, that of the pieces.",
            right - 4 * n * d: "4 * d_model are missing from each block. Has each of the four "
            "projections its bias, and each of the two norms a gain and a bias?",
            right - n * (f + d): "both layers of the feed-forward network have biases.",
        }
        sizes = f"vocab_size {v}, max_len {m}, d_model {d}, d_ff {f} and n_layers {n}"
        raise Mistake(hints.get(found, f"with {sizes} it is {right}, got {found}."))


@exercise
def fold(answer):
    """Check tables of words and places into which the first segment's vector was folded."""
    generator = torch.Generator().manual_seed(0)
    w, p, s = (torch.randn(rows, 5, generator=generator) for rows in (7, 3, 2))
    found = answer(w.clone(), p.clone(), s.clone())
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mistake("return two tables, of the words and of the places.")
    for name, table, old in zip(("words", "places"), found, (w, p), strict=True):
        if not isinstance(table, torch.Tensor) or table.shape != old.shape:
            shape = getattr(table, "shape", None)
            shape = type(table).__name__ if shape is None else tuple(shape)
            raise Mistake(f"the table of {name} keeps its shape {tuple(old.shape)}, got {shape}.")

    def sums(words, places):
        return words[:, None] + places

    result, right = sums(*found), sums(w, p) + s[0]
    mistakes = {
        "nothing has changed: add the vector to each row of one of the tables.": sums(w, p),
        "each input is a row of words plus a row of places. You added the vector to both tables, "
        "so it counts twice.": sums(w, p) + 2 * s[0],
        "this is the vector of the second segment; a single text is the first.": sums(w, p) + s[1],
        "only one segment counts, that of the text, not both.": sums(w, p) + s.sum(0),
        "add the vector, do not take it away.": sums(w, p) - s[0],
    }
    if torch.allclose(result, right, atol=1e-5):
        return
    for hint, wrong in mistakes.items():
        if torch.allclose(result, wrong, atol=1e-5):
            raise Mistake(hint)
    raise Mistake(
        "word 0 at place 0 should sum to "
        f"{[round(x, 2) for x in right[0, 0].tolist()]}, "
        f"got {[round(x, 2) for x in result[0, 0].tolist()]}."
    )


@exercise
def distance(answer):
    """Check a function from the cosine of two vectors of length 1 to their distance."""
    for c in (0.5, -0.28, 0.92):
        right = math.sqrt(2 - 2 * c)
        found = float(answer(c))
        if math.isclose(found, right, abs_tol=1e-4):
            continue
        hints = [
            (2 - 2 * c, "that is the square of the distance."),
            (1 - c, "1 - cosine is often called a distance, but it is half of the square of one."),
            (math.sqrt(1 - c), "the square has a factor of 2: both vectors bring a 1."),
            (math.sqrt(1 - c * c), "that is the sine: how far one vector's end is from the line "
            "of the other, not from its end."),
            (math.acos(c), "that is the angle, the way along the sphere. Go straight."),
            (math.sqrt(2 + 2 * c), "that is the length of their sum; mind the sign."),
        ]  # fmt: skip
        for wrong, hint in hints:
            if math.isclose(found, wrong, abs_tol=1e-4):
                raise Mistake(hint)
        raise Mistake(f"for a cosine of {c} it is {right:.4f}, got {found:.4f}.")


@exercise
def our_name(answer):
    """Check a function from a name in a file of BERT's to the name of our parameter."""
    table = {theirs: ours for ours, theirs in names(13).items()}
    for theirs, right in table.items():
        found = answer(theirs)
        if found == right:
            continue
        text = f"{theirs} is our {right}, got {found!r}."
        if not isinstance(found, str):
            raise Mistake("return the name as a string. " + text)
        if found == theirs:
            raise Mistake("this name was left as it is. " + text)
        if found.replace(".weight", ".gain") == right:
            raise Mistake("a norm's weight is its gain. " + text)
        if right.replace(".gain", ".weight") != right and found.endswith("weight"):
            raise Mistake("a norm's weight is its gain. " + text)
        if "layer.1" in theirs and "layer.1." not in theirs:
            raise Mistake("the number of a block can have two digits. " + text)
        if "attention.output.dense" in theirs or "attention.output.LayerNorm" in theirs:
            raise Mistake(
                "'output' stands in two places: the attention's own output, and the block's. "
                "Look for the longer one first. " + text
            )
        raise Mistake(text)
    for theirs in sorted(UNUSED):
        if answer(theirs) != "":
            raise Mistake(f"{theirs} has no place in our model: return an empty string.")
