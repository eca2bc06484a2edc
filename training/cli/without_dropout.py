"""Training a network as if all its dropout rates were 0, whatever their names."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from uncertainty.dropout.function_mode import Call, DropoutMode


class _Undropped(DropoutMode):
    def drop(self, call: Call) -> Tensor:
        return call.x


def switch_off(network: nn.Module) -> None:
    """Leaves dropout out of every pass from now on, in training mode too, also inside attention and recurrent layers.

    Weights, and the random numbers that they were initialised from, stay as they are. Randomness that is no dropout,
    such as skipped blocks, stays on.
    """
    running: list[ExitStack] = []

    def enter(*_: Any) -> None:
        running.append(ExitStack())
        running[-1].enter_context(_Undropped())

    def leave(*_: Any) -> None:
        running.pop().close()

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave, always_call=True)
