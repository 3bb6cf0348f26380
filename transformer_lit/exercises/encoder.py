"""The checks of chapter 10, the encoder."""

import torch

from transformer_lit.encoder import Encoder, mean_pool
from transformer_lit.exercises import Mistake, exercise
from transformer_lit.vocabulary import real_positions

_BATCH, _SEQ, _D_MODEL = 3, 7, 5
_LENGTHS = (7, 2, 4)


@exercise
def parameters(answer):
    """Check a function from n_layers, d_model and d_ff to an encoder's number of parameters."""
    for n, d, f in ((3, 7, 11), (1, 5, 13)):
        stack = Encoder(n_layers=n, d_model=d, n_heads=1, d_ff=f)
        right = sum(parameter.numel() for parameter in stack.parameters())
        found = answer(n, d, f)
        if found == right:
            continue
        hints = {
            right - 2 * d: "the norm behind the last block is missing.",
            right + (n - 1) * 2 * d: "there is one norm behind the stack, not one more per block.",
            right - 4 * n * d: "4 * d_model are missing from each block. Has each of the four "
            "projections its bias, and each of the two norms a gain and a bias?",
            right - 4 * n * d - 2 * d: "a LayerNorm learns too: a gain and a bias, d_model each.",
            right - 2 * n * d - d: "a LayerNorm has a bias as well as a gain.",
            right - n * (f + d): "both layers of the feed-forward network have biases.",
            right - n * (d * d + d): "attention has four projections: out_proj learns too.",
            (right - 2 * d) // n + 2 * d: "that is one block. No two blocks share their numbers.",
        }
        sizes = f"n_layers {n}, d_model {d} and d_ff {f}"
        raise Mistake(hints.get(found, f"with {sizes} it is {right}, got {found}."))


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors whose real numbers are negative and whose padding is large."""
    x = -0.5 - torch.rand(_BATCH, _SEQ, _D_MODEL, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor(_LENGTHS)
    return x.masked_fill(~real_positions(lengths, _SEQ)[..., None], 9.0), lengths


def _pooled(found: object) -> torch.Tensor:
    if not isinstance(found, torch.Tensor):
        raise Mistake(f"return one tensor of vectors, got {type(found).__name__}.")
    if tuple(found.shape) != (_BATCH, _D_MODEL):
        raise Mistake(
            f"for x of shape {(_BATCH, _SEQ, _D_MODEL)} there should be one vector per sequence, "
            f"{(_BATCH, _D_MODEL)}, got {tuple(found.shape)}."
        )
    return found


def _expect(found: torch.Tensor, right: torch.Tensor, mistakes: dict[str, torch.Tensor]) -> None:
    if torch.allclose(found, right, atol=1e-5):
        return
    for hint, wrong in mistakes.items():
        if torch.allclose(found, wrong, atol=1e-5):
            raise Mistake(hint)
    row = int((found - right).abs().amax(-1).argmax())
    raise Mistake(
        f"the sequence of length {_LENGTHS[row]} should become {right[row].tolist()}, "
        f"got {found[row].tolist()}."
    )


@exercise
def max_pool(answer):
    """Check a function from vectors and lengths to the largest number of each feature."""
    x, lengths = _batch()
    padding = ~real_positions(lengths, _SEQ)[..., None]
    mistakes = {
        "the padding takes part. Only the first positions, as many as the length says, count.": (
            x.amax(1)
        ),
        "zeros in place of the padding win when all real numbers are negative. What is smaller "
        "than every number?": x.masked_fill(padding, 0).amax(1),
        "that is the smallest number of each feature.": x.amin(1),
        "that is the mean.": mean_pool(x, lengths),
        "one position too few: a sequence of length 2 has the positions 0 and 1.": torch.stack(
            [row[: max(length - 1, 1)].amax(0) for row, length in zip(x, _LENGTHS, strict=True)]
        ),
    }
    found = _pooled(answer(x.clone(), lengths))
    _expect(found, x.masked_fill(padding, -torch.inf).amax(1), mistakes)


@exercise
def blocks_needed(answer):
    """Check a function from a distance and a reach to the smallest number of blocks."""
    for distance, reach in ((19, 3), (12, 3), (5, 7), (9, 1)):
        right = -(-distance // reach)
        found = answer(distance, reach)
        if found == right:
            continue
        asked = f"for a distance of {distance} and a reach of {reach}"
        hints = {
            distance // reach: "what is left over needs a block too.",
            distance // reach + 1: "the last block is one too many: the distance is a multiple of "
            "the reach.",
            distance: "a block carries news over as many places as it reaches, not over one.",
            -(-distance // (2 * reach + 1)): "2 * reach + 1 places lie in the window, but only "
            "reach of them on one side.",
            -(-distance // (2 * reach)): "only the places on one side count.",
            max(distance - reach, 0): "one block reaches that much less far, and the next again.",
        }
        raise Mistake(f"{asked} {hints.get(found, f'it is {right}, got {found}.')}")


@exercise
def attention_pool(answer):
    """Check a function from vectors, a query and lengths to the mixtures that the query takes."""
    x, lengths = _batch()
    query = torch.tensor([2.0, -1.0, 0.5, 3.0, -2.0])
    real = real_positions(lengths, _SEQ)
    scores = x @ query / _D_MODEL**0.5
    weights = scores.masked_fill(~real, -torch.inf).softmax(-1)

    def mixed(weights):
        return (weights[..., None] * x).sum(1)

    mistakes = {
        "the padding gets weight. Where should its scores be set to minus infinity?": mixed(
            scores.softmax(-1)
        ),
        "the weights of the real positions no longer sum to one. Mask the scores, before the "
        "softmax.": mixed(scores.softmax(-1) * real),
        "a score of 0 still gets a weight. The padding needs a score of minus infinity.": mixed(
            (scores * real).softmax(-1)
        ),
        "the softmax runs over the sequences. Each sequence has weights of its own.": mixed(
            scores.masked_fill(~real, -torch.inf).softmax(0)
        ),
        "the scores are not divided by the root of d_model.": mixed(
            (x @ query).masked_fill(~real, -torch.inf).softmax(-1)
        ),
        "that is the mean: the query is not used.": mean_pool(x, lengths),
    }
    _expect(_pooled(answer(x.clone(), query.clone(), lengths)), mixed(weights), mistakes)
