"""Packed steps: the members of a network that drops from the steps of a sequence, step by step instead of text by text.

A convolution is a sum of linear maps, one for each step of its window. So each member's map of a step is computed once,
in matrix products over packed rows: without the steps that are zero (what fills up a short text) or that the member
drops as wholes, and once for all rows of the batch that have the same step in the same place. The maps of the steps in
a window are then added up.

Source: kn2row (Vasudevan, Anderson and Gregg, Parallel Multi Channel Convolution using General Matrix
Multiplication, 2017), on packed rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dubio.uncertainty.dropout.audit import SamplingPlan
from dubio.uncertainty.errors import StrategyNotApplicable
from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.chain import Linear, Mask
from dubio.uncertainty.execution.fallback import Strategy
from dubio.uncertainty.execution.steps import Branch, Steps, StepsInput

# Numbers in one result of a matrix product: more than the nearest caches hold, and fresh memory costs more than the
# arithmetic.
PRODUCT = 2**18
# Numbers in the activation of all positions at a time.
POSITIONS = 2**20
# Bytes of a block that is freed once: glibc then keeps freed blocks up to this size instead of handing them back to the
# system, which would clear them page by page for the next call. (Its own limit is 32 MiB.)
KEPT = 31 * 2**20


class PackedSteps:
    """The members, packed. Immutable, so thread-safe.

    Args:
        plan: Of the network, which runs what comes before the first branch.
        steps: As recorded.
        banks: Scaled masks, ``[K, *site.shape]`` a site.
        max_numbers: How many numbers an activation may hold.
        other: Runs inputs of another shape than the recorded one.

    Raises:
        StrategyNotApplicable: The masks on the steps would hold more numbers than that.
    """

    def __init__(
        self,
        plan: SamplingPlan,
        steps: Steps,
        banks: Sequence[Tensor],
        shape: torch.Size,
        max_numbers: int,
        other: Strategy,
    ) -> None:
        length, width = steps.shape
        if len(banks[0]) * length * width > max_numbers:
            raise StrategyNotApplicable(
                f"the members' masks on the steps would hold {len(banks[0]) * length * width} numbers, more than the "
                f"{max_numbers} of the budget"
            )
        self._plan, self._steps, self._shape, self._other = plan, steps, shape, other
        mask_KLF = banks[0].new_ones(len(banks[0]), length, width)
        for site, axes in steps.sites:
            order = [axes.index(axis) for axis in (0, 1, 2)]
            # A mask has no axis for rows; members take its place.
            mask_KLF = mask_KLF * banks[site].expand(-1, *[steps.shape[axis - 1] for axis in axes[1:]]).permute(order)
        self._mask_NF = mask_KLF.flatten(0, 1)
        self._kept_KL = (mask_KLF != 0).any(2)
        # The steps' linear maps have no bias, so that an absent step gives zeros.
        self._maps = [[kernels.linear(Linear(weight, None)) for weight in branch.weights] for branch in steps.branches]
        self._layers = [layer.site if isinstance(layer, Mask) else kernels.prepare(layer) for layer in steps.layers]
        self._masks = banks
        # Numbers for a row and a member: positions of the widest branch, and whether the next layers are larger.
        widths = [len(branch.weights[0]) for branch in steps.branches]
        positions = max(branch.positions(length) for branch in steps.branches)
        self._row_numel = positions * max(widths)
        self._rows_of_product = max(1, min(PRODUCT, max_numbers) // max(width, *widths))
        self._max_numbers = min(POSITIONS, max_numbers)
        torch.empty(KEPT, dtype=torch.uint8)

    def __call__(self, x: Tensor, members: slice) -> Tensor:
        if x.shape[1:] != self._shape:
            return self._other(x, members)
        max_rows = max(1, self._max_numbers // self._row_numel)
        parts = [self._chunk(rows, members) for rows in torch.split(x, max_rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _chunk(self, x: Tensor, members: slice) -> Tensor:
        distinct_UF, place_U, index_BL = _pack(StepsInput(self._plan, self._steps).steps(x))
        absent = len(distinct_UF)
        if absent > self._rows_of_product and len(x) > 1:
            halves = torch.tensor_split(x, 2)
            return torch.cat([self._chunk(half, members) for half in halves], dim=1)
        taken = [_positions(branch, index_BL, absent) for branch in self._steps.branches]
        step = max(1, min(self._rows_of_product // (absent + 1), self._max_numbers // (len(x) * self._row_numel)))
        outputs = [
            self._run(slice(first, min(first + step, members.stop)), distinct_UF, place_U, taken)
            for first in range(members.start, members.stop, step)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _run(self, members: slice, distinct_UF: Tensor, place_U: Tensor, taken: Sequence[Sequence[Tensor]]) -> Tensor:
        count = members.stop - members.start
        inputs_RF, slot_KU = self._inputs(members, distinct_UF, place_U)
        pooled = [
            self._branch(branch, maps, inputs_RF, slot_KU, indices)
            for branch, maps, indices in zip(self._steps.branches, self._maps, taken, strict=True)
        ]
        batch = pooled[0].shape[1]
        x = torch.cat(pooled, dim=2).flatten(0, 1)
        for layer in self._layers:
            if isinstance(layer, int):
                x.unflatten(0, (count, batch)).mul_(self._masks[layer][members].unsqueeze(1))
            else:
                x = layer(x)
        return x.view(count, batch, -1)

    def _inputs(self, members: slice, distinct_UF: Tensor, place_U: Tensor) -> tuple[Tensor, Tensor]:
        """Give the steps that members keep, with a step of zeros at the end, and in which row of them each one is."""
        size, length = len(distinct_UF), self._steps.shape[0]
        kept_KU = self._kept_KL[members][:, place_U]
        member_R, step_R = kept_KU.nonzero(as_tuple=True)
        mask_R = (member_R + members.start) * length + place_U[step_R]
        inputs_RF = distinct_UF.new_zeros(len(step_R) + 1, distinct_UF.shape[1])
        torch.index_select(distinct_UF, 0, step_R, out=inputs_RF[:-1])
        inputs_RF[:-1].mul_(self._mask_NF.index_select(0, mask_R))
        slot_KU = torch.full((len(kept_KU), size + 1), len(step_R), device=distinct_UF.device)
        slot_KU[:, :size][kept_KU] = torch.arange(len(step_R), device=distinct_UF.device)
        return inputs_RF, slot_KU

    def _branch(
        self,
        branch: Branch,
        maps: Sequence[kernels.Kernel],
        inputs_RF: Tensor,
        slot_KU: Tensor,
        indices: Sequence[Tensor],
    ) -> Tensor:
        """Give what is pooled of a branch, ``[K, B, O]``."""
        x = torch.zeros(())
        for offset, (kernel, index_BP) in enumerate(zip(maps, indices, strict=True)):
            slot_N = slot_KU.index_select(1, index_BP.flatten()).flatten()
            part = kernel(inputs_RF).index_select(0, slot_N)
            x = x.add_(part) if offset else part
        x = x.view(len(slot_KU), *indices[0].shape, -1)
        if branch.largest and all(function is torch.relu for function in branch.functions):
            x = x.amax(2)  # adding a number to all and ReLU keep their order
            return _finish(branch, x)
        x = _finish(branch, x)
        return x.amax(2) if branch.largest else x.mean(2)


def _finish(branch: Branch, x: Tensor) -> Tensor:
    x = x if branch.bias is None else x.add_(branch.bias)
    for function in branch.functions:
        x = function(x)
    return x


def _pack(steps_BLF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the distinct steps ``[U, F]``, their places ``[U]``, and which one each is ``[B, L]``; for zeros, U."""
    batch, length, width = steps_BLF.shape
    flat_NF = steps_BLF.reshape(-1, width)
    present_R = (flat_NF != 0).any(1).nonzero().squeeze(1)
    rows_RF, place_R = flat_NF[present_R], present_R % length
    distinct, index_R = _distinct(rows_RF, place_R) if batch > 1 else (None, None)
    if distinct is None or index_R is None:
        index_R = torch.arange(len(present_R), device=flat_NF.device)
    else:
        rows_RF, place_R = rows_RF[distinct], place_R[distinct]
    index_N = torch.full((batch * length,), len(rows_RF), device=flat_NF.device)
    index_N[present_R] = index_R
    return rows_RF, place_R, index_N.view(batch, length)


def _distinct(rows_RF: Tensor, place_R: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Give one of each kind of row and which kind each is; None where that could not be told."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    factor_F = torch.rand(rows_RF.shape[1], generator=generator, dtype=torch.float64).to(rows_RF.device)
    # Equal rows have equal sums; whether rows with equal sums are equal is looked at.
    sums_R = (rows_RF * factor_F).sum(1) + place_R * math.pi
    _, kind_R = torch.unique(sums_R, return_inverse=True)
    count = int(kind_R.max()) + 1 if len(kind_R) else 0
    first = torch.empty(count, dtype=torch.int64, device=rows_RF.device)
    first[kind_R] = torch.arange(len(kind_R), device=rows_RF.device)
    mine = first[kind_R]
    if torch.equal(rows_RF[mine], rows_RF) and torch.equal(place_R[mine], place_R):
        return first, kind_R
    return None, None


def _positions(branch: Branch, index_BL: Tensor, absent: int) -> list[Tensor]:
    """Give for each step of the window which one it is at each position, ``[B, P]``.

    Where the largest number counts, one position without any step stands for all of them.
    """
    positions = branch.positions(index_BL.shape[1])
    if branch.largest:
        present_L = (index_BL != absent).any(0).nonzero()
        last = int(present_L[-1]) if len(present_L) else -1
        positions = min(positions, max(0, -(-(last + 1 + branch.padding[0]) // branch.stride)) + 1)
    padded = torch.nn.functional.pad(index_BL, branch.padding, value=absent)
    first = torch.arange(positions, device=index_BL.device) * branch.stride
    return [padded[:, first + offset * branch.dilation] for offset in range(len(branch.weights))]
