"""Sites: the dropout calls of a network in order, and how a member's mask is applied at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dubio.uncertainty.dropout.function_mode import ALPHA, Call, without_axis
from dubio.uncertainty.errors import StrategyNotApplicable, UnsupportedNetwork

# Minus the value to which SELU saturates (Klambauer 2017).
SATURATION = 1.7580993408473766


@dataclass(frozen=True)
class Site:
    """One place where dropout is sampled.

    Attributes:
        kind: The function of ``torch.nn.functional`` that is called, or ``attention``, ``lstm``, ``gru``, ``rnn``.
        p: Probability that a unit (or, for the kinds that drop channels, a channel) is dropped.
        shape: Shape of one member's mask, without the axis of the rows.
        name: Of the module that drops out there; a second call of it ends in ``#2``.
        axis: Of the activation that holds the rows; None where one mask serves all rows (a weight is dropped).
    """

    kind: str
    p: float
    shape: tuple[int, ...]
    name: str = field(default="", compare=False)
    axis: int | None = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.name + ': ' if self.name else ''}{self.kind}(p={self.p:g}, shape={list(self.shape)})"


@dataclass(frozen=True)
class PlannedCall:
    """One call that a pass makes, and where the mask goes.

    Attributes:
        kind: Of the call.
        p: The rate in the call, which the site's may override.
        site: None where nothing is sampled.
        shape: Of the activation without the rows' axis.
        dtype: Of the activation.
        merged_axis: Axis that holds the rows together with something else (windows, time steps), or None.
        packed: Whether the activation is a packed sequence.
        inplace: Whether the call overwrites its input.
    """

    kind: str
    p: float
    site: Site | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    merged_axis: int | None = None
    packed: bool = False
    inplace: bool = False

    def apply(self, call: Call, mask: Tensor, batch: int, num_members: int | None = None) -> Tensor:
        """The activation with units dropped.

        Args:
            call: That the pass made.
            mask: Scaled, of the site's shape; with a leading axis of members where these are folded into the batch.
            batch: Rows of the pass, without members.
            num_members: How many are folded into the batch, member by member; None if there is only one.

        Raises:
            UnsupportedNetwork: The activation is larger than what was audited.
            StrategyNotApplicable: Members cannot be folded into the batch here.
        """
        if self.site is None:
            raise ValueError("Expected a planned call with a site.")
        x = call.x
        mask = mask if mask.dtype == x.dtype else mask.to(x.dtype)
        if call.steps is not None:
            if num_members is not None:
                raise StrategyNotApplicable(
                    "Packing sorts the rows, so members that are folded into the batch would mix."
                )
            lengths = call.steps.tolist()
            mask = self._fit(mask, (len(lengths), x.shape[1]))
            times = torch.arange(len(lengths)).repeat_interleave(call.steps.cpu())
            return self._drop(x, mask[times.to(x.device)])
        axis = self.site.axis
        if axis is None:
            if num_members is not None:
                raise StrategyNotApplicable("One mask serves all rows, so members cannot be folded into the batch.")
            return self._drop(x, self._fit(mask, tuple(x.shape)))
        if self.merged_axis is not None:
            total = batch * (num_members or 1)
            x = x.unflatten(self.merged_axis, (total, -1) if axis == self.merged_axis else (-1, total))
        mask = self._fit(mask, without_axis(x.shape, axis))
        if num_members is not None:
            dropped = self._drop(
                x.unflatten(axis, (num_members, -1)), mask.movedim(0, axis).unsqueeze(axis + 1)
            ).flatten(axis, axis + 1)
        else:
            dropped = self._drop(x, mask.unsqueeze(axis) if axis else mask)
        return dropped if self.merged_axis is None else dropped.flatten(self.merged_axis, self.merged_axis + 1)

    def _drop(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.kind not in ALPHA:
            return x * mask
        p = self.site.p if self.site else 0.0
        shift = 0.0 if p == 1 else SATURATION * alpha_scale(p) * (1 - p)
        return (x + SATURATION) * mask - shift

    def _fit(self, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The part of the mask that a smaller activation needs: the first positions along every axis."""
        if shape == self.shape or self.site is None:
            return mask
        if len(shape) != len(self.shape) or any(now > then for now, then in zip(shape, self.shape, strict=True)):
            raise UnsupportedNetwork(
                f"Expected an activation of at most {list(self.shape)} a row at the dropout site {self.site}, as when "
                f"the network was audited, but got {list(shape)}; audit with the largest input that will come."
            )
        for index, (now, own) in enumerate(zip(shape, self.site.shape, strict=True)):
            if own > 1:  # 1 broadcasts, or is as long as the activation
                mask = mask.narrow(index - len(shape), 0, min(now, own))
        return mask


def alpha_scale(p: float) -> float:
    """Factor that keeps the variance of alpha dropout's output at 1; 0 where everything is dropped."""
    return 0.0 if p == 1 else 1 / math.sqrt((SATURATION**2 * p + 1) * (1 - p))
