"""The batch axis: which axis of an activation holds the rows, found by running batches of two sizes."""

from __future__ import annotations

import torch

from dubio.uncertainty.dropout.function_mode import CHANNELS, Call, without_axis
from dubio.uncertainty.dropout.sites import PlannedCall, Site
from dubio.uncertainty.errors import UnsupportedSite


def merged_axis(two: Call, three: Call) -> int | None:
    """The axis that holds the rows together with something else, or None; arguments as those of `plan_call`."""
    axis = _varying(two, three)
    return axis if axis is not None and two.shape[axis] > 2 else None


def plan_call(two: Call, three: Call, changed: tuple[Call, Call] | None, p: float | None) -> PlannedCall:
    """How masks are to be applied at a call.

    Args:
        two: The call in a batch of two rows.
        three: The same call in a batch of three.
        changed: The call in two batches of three that differ in the second row; only for a merged axis.
        p: The rate to sample with; None if nothing is to be sampled.

    Raises:
        UnsupportedSite: The rows cannot be told from the other axes.
    """
    if two.steps is not None:
        # The longest row decides, whichever probe it was in.
        shape = (max(two.shape[0], three.shape[0]), two.shape[1])
        site = None if p is None else Site(two.kind, p, shape, two.name, None)
        return PlannedCall(two.kind, two.p, site, shape, two.x.dtype, packed=True)
    _check_axes(two)
    axis = _varying(two, three)
    merged = merged_axis(two, three)
    full = two.shape
    if merged is not None and axis is not None and changed is not None:
        inner = _rows_are_inner(*changed, merged)
        rows_and_rest = (full[merged] // 2, 2) if inner else (2, full[merged] // 2)
        full = (*full[:merged], *rows_and_rest, *full[merged + 1 :])
        axis = merged + 1 if inner else merged
    # A kind that drops channels has one entry for each of the first two axes.
    covered = 2 + (1 if merged in {0, 1} else 0)
    mask = full[:covered] + (1,) * len(full[covered:]) if two.kind in CHANNELS else full
    site = None if p is None else Site(two.kind, p, without_axis(mask, axis), two.name, axis)
    return PlannedCall(two.kind, two.p, site, without_axis(full, axis), two.x.dtype, merged, inplace=two.inplace)


def _varying(two: Call, three: Call) -> int | None:
    """The axis whose length grows with the batch; None if the activation knows nothing of the batch."""
    if len(two.shape) == len(three.shape):
        varying = [axis for axis, lengths in enumerate(zip(two.shape, three.shape, strict=True)) if len({*lengths}) > 1]
        if not varying:
            return None
        axis = varying[0]
        if len(varying) == 1 and two.shape[axis] % 2 == 0 and two.shape[axis] * 3 == three.shape[axis] * 2:
            return axis
    raise UnsupportedSite(
        f"{two} sees an activation of shape {two.shape} for a batch of 2 and {three.shape} for 3; one axis must hold "
        "the batch and the others must not depend on it."
    )


def _check_axes(call: Call) -> None:
    due = {"dropout1d": {3}, "dropout2d": {3, 4}, "dropout3d": {5}}.get(call.kind)
    if due is not None and len(call.shape) not in due:
        axes = max(due) - 2
        raise UnsupportedSite(
            f"{call} sees an activation of shape {call.shape}; {call.kind} needs [B, C] and {axes} more axes."
        )


def _rows_are_inner(before: Call, after: Call, axis: int) -> bool:
    """Whether the rows vary fastest along an axis that holds 3 of them, by what the second row's change changed."""
    one, other = (each.x.movedim(axis, 0).flatten(1) for each in (before, after))
    differs = (~torch.isclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True)).any(1).nonzero().flatten().tolist()
    size = len(one) // 3
    inner, outer = all(index % 3 == 1 for index in differs), all(index // size == 1 for index in differs)
    if inner == outer:
        raise UnsupportedSite(
            f"{before} sees an activation of shape {before.shape} for a batch of 3, whose axis {axis} holds the rows "
            "together with something else in an order that could not be told; drop out before reshaping."
        )
    return inner
