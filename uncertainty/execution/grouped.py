"""Grouped layers: a linear layer for each member at once, as one convolution by oneDNN.

oneDNN takes weights in an order of its own, which depends on the instruction set, the number of threads and the number
of rows. Weights in another order than it wants are reordered at every call, which takes up to a hundred times as long
as the call itself. So the orders for many numbers of rows are compared when the layer is built, and it runs at those
alone that want the order that the weights are in: a batch is padded to the next of them, or split where that is far or
there is none.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

# Rows that weights are ordered for, as is tried first.
TYPICAL_ROWS = 32
# Numbers of rows that are tried: the most telling first, then those that halve the gaps, largest gaps first, until
# padding costs an eighth at most. Where time is up before, gaps are wide, but of one proportion.
TRIED_ROWS = (
    *(1, 8, 64, 128, 16, 4, 256, 2, 3, 96, 48, 24, 192, 12, 6),
    *(160, 224, 80, 112, 40, 56, 20, 28, 10, 14, 5, 7),
    *(72, 88, 104, 120, 144, 176, 208, 240, 36, 44, 52, 60, 18, 22, 26, 30, 9, 11, 13, 15),
)
# A call costs as much as so many rows, as it reads the weights.
CALL_ROWS = 16
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
        # With AVX alone a convolution that fuses a ReLU is another one, whose weights have another order.
        fused = relu and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
        self._bias, self._after, self._relu = bias_KO.flatten(), "relu" if fused else "none", relu and not fused
        self._packed = self._pack(weight_KOI.reshape(-1, self._incoming, 1, 1), TYPICAL_ROWS)
        self.rows = {torch.get_num_threads(): self._fitting(end, clock)}

    @property
    def fitting(self) -> tuple[int, ...]:
        """The numbers of rows at which it runs in this thread, increasing."""
        # Asking also tells oneDNN the number in a thread that has not computed yet.
        threads = torch.get_num_threads()
        fitting = self.rows.get(threads)
        if fitting is None:
            fitting = self.rows[threads] = self._fitting(float("inf"), time.perf_counter)
        return fitting

    def __call__(self, x_BKI: Tensor) -> Tensor:
        return in_parts(self._run, x_BKI, split(len(x_BKI), self.fitting))

    def _run(self, x_BKI: Tensor) -> Tensor:
        # One convolution of 1x1 over `rows` pixels, with a group for each member.
        rows, groups = len(x_BKI), self._num_members
        pixels = x_BKI.reshape(1, rows, 1, groups * self._incoming).permute(0, 3, 2, 1)
        out = torch.ops.mkldnn._convolution_pointwise.default(
            pixels, self._packed, self._bias, _ZEROS, _ONES, _ONES, groups, self._after, [], ""
        )
        out_BKO: Tensor = out.permute(0, 3, 2, 1).reshape(rows, groups, self._width)
        return out_BKO.relu_() if self._relu else out_BKO

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


def in_parts(run: Callable[[Tensor], Tensor], x: Tensor, sizes: Sequence[int], rows_axis: int = 0) -> Tensor:
    """Run a batch in parts of these sizes, the last filled up with its last row; the result without what was filled in.

    Args:
        run: From ``[rows, ...]`` to something that has rows, too.
        x: ``[B, ...]``, B at least 1.
        sizes: That sum to B or more.
        rows_axis: Of what it gives.
    """
    outputs, first = [], 0
    for size in sizes:
        part = x[first : first + size]
        first += len(part)
        if missing := size - len(part):
            part = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
        outputs.append(run(part))
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=rows_axis)
    return whole.narrow(rows_axis, 0, len(x))


def split(rows: int, fitting: tuple[int, ...]) -> list[int]:
    """Give the numbers of rows, all of them fitting, at which a batch is computed; the last is padded.

    >>> split(67, (1, 4, 64, 128))
    [64, 4]
    """
    whole = max(0, -(-rows // fitting[-1]) - 1)
    return [fitting[-1]] * whole + list(_parts(rows - whole * fitting[-1], fitting))


@lru_cache(4096)
def _parts(rows: int, fitting: tuple[int, ...]) -> tuple[int, ...]:
    """Give the cheaper of padding, and taking as many rows as fit without; for at most as many rows as the largest."""
    index = bisect_left(fitting, rows)
    padded = (fitting[index],)
    if not index or fitting[index] == rows:
        return padded
    parted = (fitting[index - 1], *_parts(rows - fitting[index - 1], fitting))
    return min(padded, parted, key=lambda parts: sum(parts) + CALL_ROWS * len(parts))


def _order(packed: Tensor) -> bytes:
    """Describe the order of weights."""
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy())
