"""Recurrence: a memory of fixed size is passed along from each symbol to the next.

Chapter: https://transformer-lit.github.io/transformer_lit/book/19-recurrence.html
Paper: Elman 1990, https://doi.org/10.1207/s15516709cog1402_1 (a layer that reads itself);
    Hochreiter and Schmidhuber 1997, section 4, https://doi.org/10.1162/neco.1997.9.8.1735 (LSTM);
    Gers et al. 2000, section 3, https://doi.org/10.1162/089976600300015015 (its forget gate).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lit.attention import check_vectors

States = Float[Tensor, "batch seq d_state"]
State = Float[Tensor, "batch d_state"]


class Elman(nn.Module):
    """The simplest recurrent layer: ``h_t = tanh(W_x x_t + W_h h_(t-1) + b)``, from zeros on.

    Elman's hidden units are logistic; today's use has the tanh.

    Args:
        d_model: the width of the vectors that come in.
        d_state: the width of the state, which is also what comes out.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, *, d_model: int, d_state: int):
        super().__init__()
        _check_sizes(d_model, d_state)
        self.x_proj = nn.Linear(d_model, d_state)
        self.h_proj = nn.Linear(d_state, d_state, bias=False)

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], state: State | None = None
    ) -> tuple[States, State]:
        """Read the places in order; return the state after each, and the last one again.

        Given a last one as ``state``, a later call goes on where the earlier one stopped.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, is empty or of another dtype than the
                layer, or ``state`` does not fit.
        """
        d_state = self.h_proj.in_features
        check_vectors(x, self.x_proj)
        h = x.new_zeros(len(x), d_state) if state is None else _fitting(state, x, d_state)
        states = []
        for from_input in self.x_proj(x).unbind(1):  # this product needs no memory: all at once
            h = torch.tanh(from_input + self.h_proj(h))
            states.append(h)
        return torch.stack(states, dim=1), h


class LSTM(nn.Module):
    """Long short-term memory: cells that keep what they hold, and gates that say when not to.

    ``c_t = f * c_(t-1) + i * g`` and ``h_t = o * tanh(c_t)``, where input gate, forget gate and
    output gate are the sigmoid of a linear function of ``x_t`` and ``h_(t-1)``, and the candidate
    ``g`` is the tanh of one. The paper of 1997 has no forget gate: its ``f`` is 1.

    Args:
        d_model: the width of the vectors that come in.
        d_state: the number of cells, which is also the width of what comes out.
        forget_bias: where the bias of the forget gates starts; 1 keeps most of what is there.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, *, d_model: int, d_state: int, forget_bias: float = 1.0):
        super().__init__()
        _check_sizes(d_model, d_state)
        # The rows of input gate, forget gate, candidate and output gate, in PyTorch's order.
        self.x_proj = nn.Linear(d_model, 4 * d_state)
        self.h_proj = nn.Linear(d_state, 4 * d_state, bias=False)
        with torch.no_grad():
            self.x_proj.bias[d_state : 2 * d_state] = forget_bias

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], state: tuple[State, State] | None = None
    ) -> tuple[States, tuple[State, State]]:
        """Read the places in order; return the outputs ``h``, and the last ``(h, c)``.

        Given that pair as ``state``, a later call goes on where the earlier one stopped.

        Raises:
            ValueError: if ``x`` is not ``d_model`` wide, is empty or of another dtype than the
                layer, or ``state`` does not fit.
        """
        d_state = self.h_proj.in_features
        check_vectors(x, self.x_proj)
        if state is None:
            state = x.new_zeros(len(x), d_state), x.new_zeros(len(x), d_state)
        h, c = (_fitting(part, x, d_state) for part in state)
        outputs = []
        for from_input in self.x_proj(x).unbind(1):
            i, f, g, o = (from_input + self.h_proj(h)).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h, c)


def _check_sizes(d_model: int, d_state: int) -> None:
    if min(d_model, d_state) < 1:
        raise ValueError(f"d_model and d_state must be at least 1, got {d_model} and {d_state}")


def _fitting(state: Tensor, x: Tensor, d_state: int) -> Tensor:
    if state.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"state must be {x.dtype}, as the vectors are, got {state.dtype}")
    if state.shape != (len(x), d_state):
        raise ValueError(
            f"state must be ({len(x)}, {d_state}), as wide as the layer and one for each sequence, "
            f"got shape {tuple(state.shape)}"
        )
    return state
