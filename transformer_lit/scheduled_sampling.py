"""Scheduled sampling: in training, the decoder is sometimes shown its own guess, not the truth.

Chapter: https://transformer-lit.github.io/transformer_lit/book/14-exposure-bias.html
Paper: Bengio et al. 2015, section 2.4, https://arxiv.org/abs/1506.03099 (schedules);
    Mihaylova and Martins 2019, section 3, https://arxiv.org/abs/1906.07651 (two passes).
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transformer_lit.encoder_decoder import STOP_ID, EncoderDecoder, Memory, PaddingMask, State

Tokens = Int[Tensor, "batch seq"]


def linear(step: int, *, k: float, c: float, least: float = 0.0) -> float:
    """Give the probability of the truth at ``step`` = 0, 1, ...: ``max(least, k - c * step)``.

    Raises:
        ValueError: unless step >= 0, 0 <= least <= k <= 1 and c > 0.
    """
    if not (step >= 0 and 0 <= least <= k <= 1 and c > 0):
        raise ValueError(
            "step >= 0, 0 <= least <= k <= 1 and c > 0 must hold, "
            f"got step {step}, least {least}, k {k}, c {c}"
        )
    return max(least, k - c * step)


def exponential(step: int, *, k: float) -> float:
    """Give the probability of the truth at ``step`` = 0, 1, ...: ``k ** step``.

    Raises:
        ValueError: unless step >= 0 and 0 < k < 1.
    """
    if not (step >= 0 and 0 < k < 1):
        raise ValueError(f"step >= 0 and 0 < k < 1 must hold, got step {step} and k {k}")
    return k**step


def inverse_sigmoid(step: int, *, k: float) -> float:
    """Give the probability of the truth at ``step`` = 0, 1, ...: ``k / (k + exp(step / k))``.

    Raises:
        ValueError: unless step >= 0 and k >= 1.
    """
    if not (step >= 0 and k >= 1):
        raise ValueError(f"step >= 0 and k >= 1 must hold, got step {step} and k {k}")
    shrunk = k * math.exp(-step / k)  # the exponential of a positive number would overflow
    return shrunk / (shrunk + 1)


def likeliest(logits: Float[Tensor, "*shape target_size"]) -> Int[Tensor, "*shape"]:
    """Choose the symbol a decoder would go on with: no padding, no begin token, no stop token.

    The papers also draw it by its probability. A decoder that wrote its stop token would read no
    more, so a stop token is never shown either.

    Raises:
        ValueError: if there are no logits of other symbols, or they are no real numbers.
    """
    if logits.shape[-1] <= STOP_ID + 1 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be real numbers of more than {STOP_ID + 1} symbols, "
            f"got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    return logits[..., STOP_ID + 1 :].argmax(-1) + STOP_ID + 1


def keeps_truth(
    shown: Tokens, eps: float, generator: torch.Generator | None = None
) -> Bool[Tensor, "batch seq"]:
    """Toss a coin for each symbol: True, with probability ``eps``, is to show the truth.

    Begin token, stop token and padding always stay.

    Raises:
        ValueError: if ``eps`` lies outside [0, 1], or the symbols are not ids ``(batch, seq)``, or
            none.
    """
    whole = not shown.is_floating_point() and shown.dtype != torch.bool
    if shown.ndim != 2 or shown.numel() == 0 or not whole:
        raise ValueError(
            "shown must be ids (batch, seq) and not empty, "
            f"got {shown.dtype} of shape {tuple(shown.shape)}"
        )
    if not 0 <= eps <= 1:
        raise ValueError(f"eps must be in [0, 1], got {eps}")
    coins = torch.rand(shown.shape, generator=generator, device=shown.device)
    return (coins < eps) | (shown <= STOP_ID)


@torch.no_grad()
def step_by_step(
    model: EncoderDecoder,
    shown: Tokens,
    memory: Sequence[Memory],
    memory_mask: PaddingMask,
    *,
    eps: float,
    generator: torch.Generator | None = None,
) -> Tokens:
    """Make the decoder's input: each symbol is the truth, or what the model says to those before.

    One place at a time, with a cache. Nothing is learned here: a chosen symbol has no gradient.
    What is learned comes from one more pass on the input made, all places at once.

    Raises:
        ValueError: if ``eps`` lies outside [0, 1], or a row does not begin with ``BEGIN_ID``.
    """
    keep = keeps_truth(shown, eps, generator)
    state = State(list(memory), memory_mask, shown.shape[1])
    inputs = shown.clone()
    for place in range(1, shown.shape[1]):
        own = likeliest(model.step(inputs[:, place - 1], state))
        inputs[:, place] = torch.where(keep[:, place], shown[:, place], own)
    return inputs


@torch.no_grad()
def two_pass(
    model: EncoderDecoder,
    shown: Tokens,
    memory: Sequence[Memory],
    memory_mask: PaddingMask,
    *,
    eps: float,
    generator: torch.Generator | None = None,
) -> Tokens:
    """Make the decoder's input in one pass: each symbol is the truth, or what follows the truth.

    Arguments and errors are those of ``step_by_step``. No gradient goes through this first pass.
    """
    keep = keeps_truth(shown, eps, generator)
    own = likeliest(model.decode(shown, memory, memory_mask))
    inputs = shown.clone()
    inputs[:, 1:] = torch.where(keep[:, 1:], shown[:, 1:], own[:, :-1])
    return inputs


class ScheduledSampling(nn.Module):
    """A model for the trainer of chapter 12: in training its decoder reads a mixture.

    The encoder runs once. The count of steps is saved with the weights, so that a run that is
    resumed goes on with the right probability.

    Args:
        model: the model that learns.
        schedule: gives the probability of the truth for step 0, 1, ...
        make_inputs: ``step_by_step`` or ``two_pass``.
    """

    step: Tensor

    def __init__(
        self,
        model: EncoderDecoder,
        *,
        schedule: Callable[[int], float],
        make_inputs: Callable[..., Tokens] = two_pass,
    ):
        super().__init__()
        self.model, self.schedule, self.make_inputs = model, schedule, make_inputs
        self.register_buffer("step", torch.tensor(0))

    def forward(
        self, source: Int[Tensor, "batch source"], shown: Tokens
    ) -> Float[Tensor, "batch seq target_size"]:
        """Score what comes next at each place: of a mixture in training, else of the truth.

        Raises:
            ValueError: as ``EncoderDecoder.forward``, or if the schedule leaves [0, 1].
        """
        memory = self.model.encode(source)
        if self.training:
            eps = self.schedule(int(self.step))
            self.step += 1
            shown = self.make_inputs(self.model, shown, *memory, eps=eps)
        return self.model.decode(shown, *memory)
