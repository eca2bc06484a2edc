"""Calls that drop out: the functions, their arguments, and a mode that meets every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubio.uncertainty.dropout import attention, recurrent

# Kinds that drop whole channels: their masks cover the first two axes of the activation.
CHANNELS = frozenset({"dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_alpha_dropout"})
# Kinds that put the negative saturation of SELU where a unit is dropped, and keep mean and variance.
ALPHA = frozenset({"alpha_dropout", "feature_alpha_dropout"})
_ALIKE = ("dropout", "alpha_dropout", "feature_alpha_dropout")  # the same in torch.nn.functional and in torch
IN_PLACE = frozenset({torch.dropout_, torch.feature_dropout_, torch.alpha_dropout_, torch.feature_alpha_dropout_})
DROPOUTS: dict[Callable[..., Any], str] = {
    **{getattr(F, kind): kind for kind in (*_ALIKE, "dropout1d", "dropout2d", "dropout3d")},
    **{getattr(torch, kind): kind for kind in (*_ALIKE, "feature_dropout")},
    **{function: function.__name__.removesuffix("_") for function in IN_PLACE},
}


@dataclass(frozen=True)
class Call:
    """One call that drops out, whichever way its arguments were passed.

    Attributes:
        kind: What is dropped: a value of `DROPOUTS`, ``attention``, ``lstm``, ``gru`` or ``rnn``.
        x: The tensor that is dropped from.
        p: The rate in the call.
        training: Whether the call would drop out by itself.
        inplace: Whether it would overwrite ``x``.
        name: Of the module that called, once that is known; before, what tells several calls of one module apart.
        steps: For packed sequences, how many rows each time step has.
    """

    kind: str
    x: Tensor
    p: float
    training: bool = False
    inplace: bool = False
    name: str = ""
    steps: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the activation; for packed sequences time steps and units."""
        return tuple(self.x.shape) if self.steps is None else (len(self.steps), self.x.shape[1])

    @property
    def mask_numel(self) -> int:
        """Numbers in a mask for all rows of the pass."""
        return math.prod(self.shape[:2] if self.kind in CHANNELS else self.shape)

    def __str__(self) -> str:
        return f"dropout site {self.name!r} ({self.kind}, p={self.p:g})"

    @staticmethod
    def of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Bind the arguments of a function of `DROPOUTS` as it declares them."""
        bound: dict[str, Any] = {"p": 0.5, "training": True, "inplace": False}
        bound.update(zip(("input", "p", "training", "inplace"), args, strict=False))
        # torch.dropout says `train` where torch.nn.functional.dropout says `training`.
        bound.update({"training" if name == "train" else name: value for name, value in kwargs.items()})
        inplace = bool(bound["inplace"]) or func in IN_PLACE
        return Call(DROPOUTS[func], bound["input"], float(bound["p"]), bool(bound["training"]), inplace)


class DropoutMode(TorchFunctionMode):
    """Calls `drop` wherever dropout acts, also inside torch's attention and recurrent layers.

    A ``TorchFunctionMode`` is thread-local, so nobody else's pass is met.

    Args:
        zero_rates: Whether calls with a rate of 0 are met too: some networks pass their rate only in train mode.
    """

    def __init__(self, zero_rates: bool = False) -> None:
        super().__init__()
        self._zero_rates = zero_rates
        # Inside torch's multi-head attention: whether that would drop out by itself.
        self._attending: bool | None = None

    def drop(self, call: Call) -> Tensor:
        """Return what takes the place of ``call.x``."""
        raise NotImplementedError

    def other(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run any function that does not drop out."""
        return func(*args, **kwargs)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            call = Call.of(func, args, kwargs)
            if self._attending is not None:
                call = Call("attention", call.x, call.p, self._attending)
            return self.drop(call) if self._zero_rates or call.p > 0 else call.x
        if func is F.scaled_dot_product_attention:
            return attention.attend(self._drop_attention, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            call_args = attention.named(func, args, kwargs)
            if call_args["dropout_p"] > 0:
                outer, self._attending = self._attending, bool(call_args["training"])
                try:
                    with self:
                        return attention.forward(func, call_args)
                finally:
                    self._attending = outer
        if func in recurrent.KINDS and recurrent.rate(args) > 0:
            return recurrent.forward(func, args, self._between)
        return self.other(func, args, kwargs)

    def _drop_attention(self, weights: Tensor, p: float) -> Tensor:
        # Torch's own function drops out whenever it gets a rate; it knows no eval mode.
        training = p > 0 if self._attending is None else self._attending
        return self.drop(Call("attention", weights, p, training)) if self._zero_rates or p > 0 else weights

    def _between(self, layer: int, kind: str, x: Tensor, p: float, training: bool, steps: Tensor | None) -> Tensor:
        return self.drop(Call(kind, x, p, training, name=f".layer{layer}", steps=steps))


def without_axis(shape: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """Leave the axis of the rows out of a shape."""
    return tuple(length for index, length in enumerate(shape) if index != axis)
