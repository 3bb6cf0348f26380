"""The checks of chapter 11, encoder and decoder."""

import torch

from transformer_lit.encoder_decoder import STOP_ID
from transformer_lit.exercises import Mistake, exercise


@exercise
def keys_made(answer):
    """Check a function from n_layers and n to the keys made without a cache, and with one."""
    for layers, n in ((3, 7), (2, 5), (1, 1)):
        triangle = n * (n + 1) // 2
        right = (layers * triangle, layers * n)
        found = answer(layers, n)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Mistake(f"return two numbers, without and with the cache, got {found!r}.")
        found = tuple(int(number) for number in found)
        if found == right:
            continue
        hints = {
            right[::-1]: "first without the cache, then with it.",
            (triangle, n): "that is one block. Each block makes keys of its own.",
            (layers * n * n, layers * n): "step t works on t places, not on all n.",
            (layers * (triangle - n), layers * n): "the newest symbol needs a key too: at step 1 "
            "there is one place, not none.",
            (layers * triangle, layers): "with the cache each of the n steps makes one key in "
            "each block.",
            (
                layers * n,
                layers * n,
            ): "without the cache each step makes the keys of the past anew.",
        }
        raise Mistake(
            hints.get(found, f"for {layers} blocks and {n} symbols it is {right}, got {found}.")
        )


_WRITTEN = ([5, 3, 2, 7, 2], [4, 9, 8, 7, 3], [2, 6, 6, 2, 5], [3, 3, 2, 2, 2])


@exercise
def until_stop(answer):
    """Check a function from written ids (batch, seq) to a list of ids for each row."""
    right = [row[: row.index(STOP_ID)] if STOP_ID in row else row for row in _WRITTEN]
    found = answer(torch.tensor(_WRITTEN))
    if isinstance(found, torch.Tensor) or not isinstance(found, list | tuple):
        raise Mistake("rows differ in length, so return a list of lists.")
    found = [row.tolist() if isinstance(row, torch.Tensor) else list(row) for row in found]
    found = [[int(symbol) for symbol in row] for row in found]
    if found == right:
        return
    last = [len(row) - 1 - row[::-1].index(STOP_ID) if STOP_ID in row else 5 for row in _WRITTEN]
    mistakes = {
        "the stop token is no part of the answer.": [
            [*row, STOP_ID] if STOP_ID in whole else row
            for row, whole in zip(right, _WRITTEN, strict=True)
        ],
        "a row that was never stopped keeps all its symbols.": [
            row if STOP_ID in whole else [] for row, whole in zip(right, _WRITTEN, strict=True)
        ],
        "a row that was never stopped keeps its last symbol too.": [
            row if STOP_ID in whole else row[:-1]
            for row, whole in zip(right, _WRITTEN, strict=True)
        ],
        "what comes after the stop token is no part of the answer either.": [
            [symbol for symbol in row if symbol != STOP_ID] for row in _WRITTEN
        ],
        "cut at the first stop token, not at the last.": [
            row[:end] for row, end in zip(_WRITTEN, last, strict=True)
        ],
    }
    for hint, wrong in mistakes.items():
        if found == wrong:
            raise Mistake(hint)
    for row, wanted, got in zip(_WRITTEN, right, found, strict=False):
        if wanted != got:
            raise Mistake(f"{row} should become {wanted}, got {got}.")
    raise Mistake(f"there should be {len(right)} rows, got {len(found)}.")


def _masks() -> dict[str, tuple[torch.Tensor, bool]]:
    place = torch.arange(7)
    causal = place <= place[:, None]
    near = (place - place[:, None]).abs() <= 2
    once = causal.clone()
    once[2, 5] = True
    return {
        "the causal mask": (causal, True),
        "the causal mask within a window": (causal & near, True),
        "a window on both sides": (near, False),
        "the mask that allows everything": (torch.ones(7, 7, dtype=torch.bool), False),
        "the mask that lets each place see itself": (torch.eye(7, dtype=torch.bool), True),
        "a causal mask with one more True, in the future": (once, False),
        "the mask that shows the past and not the place itself": (causal.tril(-1), True),
        "the mask that shows the future only": (~causal, False),
    }


@exercise
def may_cache(answer):
    """Check a function that tells whether, under a mask (seq, seq), the past never changes."""
    found = {name: bool(answer(mask.clone())) for name, (mask, _) in _masks().items()}
    wrong = [name for name, (_, right) in _masks().items() if found[name] != right]
    if not wrong:
        return
    if len(set(found.values())) == 1:
        raise Mistake(f"your answer is {found[wrong[0]]} for every mask.")
    if len(wrong) == len(found):
        raise Mistake("that is the opposite: True if the past never changes.")
    itself = "the mask that lets each place see itself"
    if itself in wrong and "the mask that shows the past and not the place itself" not in wrong:
        raise Mistake("a place may attend to itself: only what lies above the diagonal counts.")
    if wrong[0] == "the causal mask within a window":
        raise Mistake(
            "a mask may hide some of the past, too. What matters is that the future is hidden."
        )
    if all(found[name] for name in wrong):
        raise Mistake(f"{wrong[0]} lets a place see a later one, which will change it.")
    raise Mistake(f"under {wrong[0]} no place sees a later one: the past never changes.")


@exercise
def cross_attention(answer):
    """Check one head of cross-attention, from x, memory, the weights and the real positions."""
    draws = torch.Generator().manual_seed(0)
    x, memory = (torch.randn(2, n, 5, generator=draws) for n in (3, 7))
    w_q, w_k, w_v = torch.randn(3, 5, 11, generator=draws)
    real = torch.arange(7) < torch.tensor([7, 4])[:, None]

    def attend(asking, asked, mask, scale=11**0.5, dim=-1):
        scores = (asking @ w_q) @ (asked @ w_k).transpose(-2, -1) / scale
        return scores.masked_fill(~mask, -torch.inf).softmax(dim).nan_to_num() @ (asked @ w_v)

    mask = real[:, None]
    right = attend(x, memory, mask)
    found = answer(x.clone(), memory.clone(), w_q, w_k, w_v, real.clone())
    if not isinstance(found, torch.Tensor):
        raise Mistake(f"return a tensor, got {type(found).__name__}.")
    if found.shape == (2, 7, 11):
        raise Mistake(
            "there is one output for each place of the memory. Who asks, and who is asked?"
        )
    if found.shape != right.shape:
        raise Mistake(f"the shape should be {tuple(right.shape)}, got {tuple(found.shape)}.")
    if torch.allclose(found, right, atol=1e-5):
        return
    everything = torch.ones_like(mask)
    mistakes = {
        "the padding of the memory gets weight.": attend(x, memory, everything),
        "the scores are not divided by the root of the head's width.": attend(x, memory, mask, 1.0),
        "the root is that of the width of a key, d_head, not of d_model.": attend(
            x, memory, mask, 5**0.5
        ),
        "each query's weights should sum to one: the softmax runs over the memory.": attend(
            x, memory, mask, dim=-2
        ),
        "a query may see all of the memory: no causal mask here.": attend(
            x, memory, mask & torch.ones(3, 7, dtype=torch.bool).tril()
        ),
        "that is self-attention: keys and values are made of the memory.": attend(
            x, x, everything[..., :3]
        ),
        "real is True where there is a symbol: this hides the inverse.": attend(x, memory, ~mask),
    }
    for hint, wrong in mistakes.items():
        if torch.allclose(found, wrong, atol=1e-5):
            raise Mistake(hint)
    raise Mistake(
        f"the first output should begin {right[0, 0, :3].tolist()}, got {found[0, 0, :3].tolist()}."
    )
