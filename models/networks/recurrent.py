"""Recurrent network with variational dropout: one mask for all time steps."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models.networks.dropout import LockedDropout
from dubio.models.networks.sequences import InputEmbedding
from dubio.models.networks.validation import check_rates, check_sizes


class RecurrentNet(nn.Module):
    """An LSTM or GRU over the rows or tokens of an input, with the dropout of Gal and Ghahramani (2016).

    One mask for what enters a layer, one for the state that is fed back and one for the last state are drawn for each
    sequence and kept over all its time steps. Torch's own layers drop anew at each step, and never what is fed back.

    Args:
        features: Numbers in each time step; of a token, the size of its embedding.
        width: Units of the state.
        cell: ``lstm`` or ``gru``.
        layers: Cells on top of each other.
        bidirectional: Whether a second stack reads from the end.
        vocabulary: How many tokens there are; 0 for rows of numbers.
        padding: What fills up shorter sequences, see `dubio.models.networks.sequences.InputEmbedding`;
            a padded step changes nothing.
        input_rate: Share of the features that a sequence does without.
        recurrent_rate: Share of the state that is not fed back.
        output_rate: Share of the state that is dropped between layers and before the head.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], or the cell is unknown.
    """

    def __init__(
        self,
        features: int = 28,
        width: int = 128,
        cell: str = "lstm",
        layers: int = 1,
        bidirectional: bool = False,
        vocabulary: int = 0,
        padding: float | None = None,
        input_rate: float = 0.1,
        recurrent_rate: float = 0.25,
        output_rate: float = 0.3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(width=width, layers=layers, num_classes=num_classes)
        check_rates(input_rate=input_rate, recurrent_rate=recurrent_rate, output_rate=output_rate)
        if cell not in GATES:
            raise ValueError(f"Expected `cell` to be one of {sorted(GATES)}, but got {cell!r}.")
        self.output_rate = output_rate
        self.steps = InputEmbedding(features, vocabulary, padding)
        directions = (False, True) if bidirectional else (False,)
        both = len(directions) * width
        self.layers = nn.ModuleList(
            nn.ModuleList(
                RecurrentLayer(both if layer else features, width, cell, backward, rate, recurrent_rate)
                for backward in directions
            )
            for layer, rate in zip(range(layers), chain([input_rate], repeat(output_rate)), strict=False)
        )
        self.head = nn.Linear(both, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of sequences ``[B, L, features]``, the rows of images ``[B, channels, H, features]``, or
        tokens ``[B, L]``."""
        states_BLH, present_BL = self.steps(x)
        for both_ways in cast("Iterable[Iterable[RecurrentLayer]]", self.layers):
            read = [layer(states_BLH, present_BL) for layer in both_ways]
            states_BLH = torch.cat([states for states, _ in read], dim=-1)
        last_BH = torch.cat([last for _, last in read], dim=-1)
        logits_BC: Tensor = self.head(F.dropout(last_BH, self.output_rate, self.training))
        return logits_BC


class RecurrentLayer(nn.Module):
    """One layer of a `RecurrentNet` in one direction; a backward one reads from the end."""

    def __init__(
        self, features: int, width: int, cell: str, backward: bool, input_rate: float, recurrent_rate: float
    ) -> None:
        super().__init__()
        self.cell, self.backward, self.recurrent_rate = cell, backward, recurrent_rate
        self.drop = LockedDropout(input_rate)
        self.from_input = nn.Linear(features, GATES[cell] * width)
        self.from_state = nn.Linear(width, GATES[cell] * width)

    def forward(self, steps_BLF: Tensor, present_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """The states ``[B, L, H]`` after each step, in the order of the steps, and the last ``[B, H]`` to be read."""
        driven_BLG = self.from_input(self.drop(steps_BLF))
        state_BH = driven_BLG.new_zeros(len(steps_BLF), self.from_state.in_features)
        fed_back_BH = F.dropout(torch.ones_like(state_BH), self.recurrent_rate, self.training)
        memory_BH = state_BH
        order = range(steps_BLF.shape[1])
        states = []
        for step in reversed(order) if self.backward else order:
            before_BH, memorised_BH = state_BH, memory_BH
            fed_BG = self.from_state(state_BH * fed_back_BH)
            if self.cell == "lstm":
                state_BH, memory_BH = _lstm(driven_BLG[:, step] + fed_BG, memory_BH)
            else:
                state_BH = _gru(driven_BLG[:, step], fed_BG, state_BH)
            if present_BL is not None:
                there_B1 = present_BL[:, step].unsqueeze(1)
                state_BH = torch.where(there_B1, state_BH, before_BH)
                memory_BH = torch.where(there_B1, memory_BH, memorised_BH)
            states.append(state_BH)
        return torch.stack(states[::-1] if self.backward else states, dim=1), state_BH


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
