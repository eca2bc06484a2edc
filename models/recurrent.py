"""Recurrent network with variational dropout: one mask for all time steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arguments import check_rates, check_sizes


class RecurrentNet(nn.Module):
    """An LSTM or GRU over the rows of an input, with the dropout of Gal and Ghahramani (2016).

    One mask for the input, one for the state that is fed back and one for the last state are drawn for each sequence
    and kept over all its time steps. Torch's own layers drop anew at each step, and never what is fed back.

    Args:
        features: numbers in each time step.
        width: units of the state.
        cell: ``lstm`` or ``gru``.
        input_rate: share of the features that a sequence does without.
        recurrent_rate: share of the state that is not fed back.
        output_rate: share of the last state that is dropped before the head.
        num_classes: C.

    Raises:
        ValueError: a size is not positive, a rate not in [0, 1], or the cell is unknown.
    """

    def __init__(
        self,
        features: int = 28,
        width: int = 128,
        cell: str = "lstm",
        input_rate: float = 0.1,
        recurrent_rate: float = 0.25,
        output_rate: float = 0.3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(features=[features], width=[width], num_classes=[num_classes])
        for name, rate in (("input", input_rate), ("recurrent", recurrent_rate), ("output", output_rate)):
            check_rates([rate], layers=1, name=f"{name}_rate")
        if cell not in GATES:
            raise ValueError(f"Expected `cell` to be one of {sorted(GATES)}, but got {cell!r}.")
        self.cell = cell
        self.input_rate, self.recurrent_rate, self.output_rate = input_rate, recurrent_rate, output_rate
        self.from_input = nn.Linear(features, GATES[cell] * width)
        self.from_state = nn.Linear(width, GATES[cell] * width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of sequences ``[B, L, features]``; or of the rows of images ``[B, channels, H, W]``."""
        steps_BLF = x.flatten(1, -2)
        kept_BF = F.dropout(torch.ones_like(steps_BLF[:, 0]), self.input_rate, self.training)
        driven_BLG = self.from_input(steps_BLF * kept_BF.unsqueeze(1))
        state_BH = driven_BLG.new_zeros(len(x), self.from_state.in_features)
        fed_back_BH = F.dropout(torch.ones_like(state_BH), self.recurrent_rate, self.training)
        memory_BH = state_BH
        for driven_BG in driven_BLG.unbind(1):
            if self.cell == "lstm":
                state_BH, memory_BH = _lstm(driven_BG + self.from_state(state_BH * fed_back_BH), memory_BH)
            else:
                state_BH = _gru(driven_BG, self.from_state(state_BH * fed_back_BH), state_BH)
        logits_BC: Tensor = self.head(F.dropout(state_BH, self.output_rate, self.training))
        return logits_BC


# Gates of a cell, each as wide as its state.
GATES = {"lstm": 4, "gru": 3}


def _lstm(gates_BG: Tensor, memory_BH: Tensor) -> tuple[Tensor, Tensor]:
    """The next state and memory (Hochreiter and Schmidhuber 1997; gates in torch's order)."""
    enter, forget, new, leave = gates_BG.chunk(4, dim=-1)
    memory_BH = forget.sigmoid() * memory_BH + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * memory_BH.tanh(), memory_BH


def _gru(driven_BG: Tensor, fed_BG: Tensor, state_BH: Tensor) -> Tensor:
    """The next state (Cho 2014; gates in torch's order, its reset gate behind the product)."""
    reset, keep, new = driven_BG.chunk(3, dim=-1)
    reset_fed, keep_fed, new_fed = fed_BG.chunk(3, dim=-1)
    candidate_BH = (new + (reset + reset_fed).sigmoid() * new_fed).tanh()
    share_BH = (keep + keep_fed).sigmoid()
    return share_BH * state_BH + (1 - share_BH) * candidate_BH
