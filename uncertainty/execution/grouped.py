"""Grouped layers: a linear layer for each member at once, as one convolution by oneDNN.

oneDNN takes weights in an order of its own, which depends on the instruction set, the number of threads and the number
of rows. Weights in another order than it wants are reordered at every call, which takes up to a hundred times as long
as the call itself. So the orders for many numbers of rows are compared when the layer is built, and it runs at those
alone that want the order that the weights are in: a batch is padded to the next of them, and a larger one is split.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that weights are ordered for, as is tried first.
TYPICAL_ROWS = 32
# Numbers of rows that are tried: the most telling first, then so many that padding costs an eighth at most.
TRIED_ROWS = (
    *(1, 8, 64, 128, 16, 4, 256, 2, 3, 5, 6, 7),
    *(*range(9, 16), *range(18, 32, 2), *range(36, 64, 4), *range(72, 128, 8), *range(144, 256, 16)),
)
_ONES, _ZEROS = [1, 1], [0, 0]


class GroupedLinear:
    """From ``[rows, K, I]`` to ``[rows, K, O]``, with the weights in oneDNN's order alone. Thread-safe.

    Args:
        weight_KOI: Of the members.
        bias_KO: Of the members.
        relu: Whether a ReLU follows.
        end: Until when numbers of rows may be tried, by `clock`.
        clock: Gives the time in seconds.

    Attributes:
        rows: By torch's number of threads, the numbers of rows at which it runs, increasing; it learns them for another
            number of threads when it is first called there.
    """

    def __init__(
        self,
        weight_KOI: Tensor,
        bias_KO: Tensor,
        relu: bool,
        end: float = float("inf"),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._num_members, self._width, self._incoming = weight_KOI.shape
        self._bias, self._after = bias_KO.flatten(), "relu" if relu else "none"
        self._packed = self._pack(weight_KOI.reshape(-1, self._incoming, 1, 1), TYPICAL_ROWS)
        self.rows = {torch.get_num_threads(): self._fitting(end, clock)}

    def __call__(self, x_BKI: Tensor) -> Tensor:
        # Asking also tells oneDNN the number in a thread that has not computed yet.
        threads, rows = torch.get_num_threads(), len(x_BKI)
        fitting = self.rows.get(threads)
        if fitting is None:
            fitting = self.rows[threads] = self._fitting(float("inf"), time.perf_counter)
        parts = -(-rows // fitting[-1])
        if parts > 1:
            return torch.cat([self._padded(part, fitting) for part in x_BKI.tensor_split(parts)])
        return self._padded(x_BKI, fitting)

    def _padded(self, x_BKI: Tensor, fitting: tuple[int, ...]) -> Tensor:
        rows = len(x_BKI)
        missing = next(size for size in fitting if size >= rows) - rows
        if not missing:
            return self._run(x_BKI)
        return self._run(F.pad(x_BKI, (0, 0, 0, 0, 0, missing)))[:rows]

    def _run(self, x_BKI: Tensor) -> Tensor:
        # One convolution of 1x1 over `rows` pixels, with a group for each member.
        rows, groups = len(x_BKI), self._num_members
        pixels = x_BKI.reshape(1, rows, 1, groups * self._incoming).permute(0, 3, 2, 1)
        out = torch.ops.mkldnn._convolution_pointwise.default(
            pixels, self._packed, self._bias, _ZEROS, _ONES, _ONES, groups, self._after, [], ""
        )
        out_BKO: Tensor = out.permute(0, 3, 2, 1).reshape(rows, groups, self._width)
        return out_BKO

    def _pack(self, stacked: Tensor, rows: int) -> Tensor:
        """Give weights ``[K * O, I, 1, 1]`` in the order for so many rows."""
        groups = self._num_members
        size = [1, groups * self._incoming, 1, rows]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(stacked, _ZEROS, _ONES, _ONES, groups, size)
        return packed

    def _fitting(self, end: float, clock: Callable[[], float]) -> tuple[int, ...]:
        """Give the numbers of rows, among those that there is time to try, that want the order of the weights."""
        kept = _order(self._packed)
        blank = self._bias.new_empty(self._num_members * self._width, self._incoming, 1, 1)
        fitting, tried = {TYPICAL_ROWS}, (TYPICAL_ROWS, *TRIED_ROWS)
        if _order(self._pack(blank, TYPICAL_ROWS)) != kept:  # packed with another number of threads
            fitting.clear()
        for rows in tried[1:]:
            if clock() > end:
                break
            if _order(self._pack(blank, rows)) == kept:
                fitting.add(rows)
        return tuple(sorted(fitting)) or (TYPICAL_ROWS,)


def _order(packed: Tensor) -> bytes:
    """Describe the order of weights."""
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy())
