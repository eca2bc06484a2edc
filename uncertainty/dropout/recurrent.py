"""Recurrent layers one by one, so that dropout between them is in the open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What nn.LSTM, nn.GRU and nn.RNN call.
KINDS: dict[Callable[..., Any], str] = {
    torch.lstm: "lstm",
    torch.gru: "gru",
    torch.rnn_tanh: "rnn",
    torch.rnn_relu: "rnn",
}
# (layer, kind, activation, rate, training, rows of each step if packed) -> activation
Between = Callable[[int, str, Tensor, float, bool, Tensor | None], Tensor]


def rate(args: tuple[Any, ...]) -> float:
    """The rate of the dropout between the layers; 0 where there is no second layer."""
    *_, num_layers, p, _, _ = args if _is_packed(args) else args[:-1]
    return float(p) if num_layers > 1 else 0.0


def forward(func: Callable[..., Any], args: tuple[Any, ...], between: Between) -> tuple[Tensor, ...]:
    """The same as ``func(*args)`` in eval mode, layer by layer, with ``between`` applied between two of them.

    Args:
        func: A key of `KINDS`.
        args: As nn.LSTM, nn.GRU and nn.RNN pass them, for padded or for packed sequences.
        between: Takes the place of the dropout.

    Returns:
        Output and final states.
    """
    packed = _is_packed(args)
    x, steps = args[0], args[1] if packed else None
    state, weights, has_biases, num_layers, p, training, bidirectional = args[2:9] if packed else args[1:8]
    directions = 2 if bidirectional else 1
    states = state if isinstance(state, tuple | list) else (state,)
    size = len(weights) // num_layers
    finals = []
    for layer in range(num_layers):
        mine = tuple(each[layer * directions : (layer + 1) * directions] for each in states)
        hidden = mine if isinstance(state, tuple | list) else mine[0]
        alone = (hidden, weights[layer * size : (layer + 1) * size], has_biases, 1, 0.0, False, bidirectional)
        x, *final = func(x, steps, *alone) if packed else func(x, *alone, args[8])
        finals.append(final)
        if layer + 1 < num_layers:
            x = between(layer, KINDS[func], x, float(p), bool(training), steps)
    return (x, *(torch.cat(each) for each in zip(*finals, strict=True)))


def _is_packed(args: tuple[Any, ...]) -> bool:
    """Whether the second argument is the number of rows at each step: the weights then come one later."""
    return isinstance(args[3], list | tuple)
