"""Grouped layers: members' linear layers as one convolution, at the numbers of rows that their weights are for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.grouped import CALL_ROWS, TRIED_ROWS, TYPICAL_ROWS, GroupedLinear, split

pytestmark = pytest.mark.skipif(
    kernels.missing_onednn(torch.zeros(1)) is not None, reason="torch has no oneDNN operators here"
)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("relu", [False, True])
def test_grouped_layers_pad_and_split_to_the_rows_that_fit(relu):
    weight, bias = _random(3, 7, 13), _random(3, 7)
    with torch.inference_mode():
        grouped = GroupedLinear(weight.float(), bias.float(), relu)
        threads = torch.get_num_threads()
        assert {TYPICAL_ROWS} <= set(grouped.rows[threads]) <= {TYPICAL_ROWS, *TRIED_ROWS}
        ran: list[int] = []
        run = grouped._run
        grouped._run = lambda x: (ran.append(len(x)), run(x))[1]
        for fitting, rows, expected in (
            ((4, 8), 3, [4]),
            ((4, 8), 8, [8]),
            ((4, 8), 9, [8, 4]),
            ((4, 8), 18, [8, 8, 4]),
            ((32,), 1, [32]),
            ((1, 16, 32), 17, [32]),
            ((1, 32, 64), 35, [64]),
            ((1, 32, 64), 48, [64]),
            ((2, 64, 128), 67, [64, 2, 2]),
            ((4, 64, 128), 67, [64, 4]),
        ):
            grouped.rows[threads], x = fitting, _random(rows, 3, 13)
            ran.clear()
            out = torch.einsum("koi,bki->bko", weight, x) + bias
            expected_out = (out.relu() if relu else out).float()
            torch.testing.assert_close(grouped(x.float()), expected_out, rtol=1e-5, atol=1e-5)
            assert ran == expected


@pytest.mark.parametrize("fitting", [(32,), (1, 8, 64, 128), (5, 7, 100), (1, 256), tuple(sorted(TRIED_ROWS))])
def test_rows_are_split_into_fitting_parts_of_which_the_last_is_padded(fitting):
    def cost(parts: list[int]) -> int:
        return sum(parts) + CALL_ROWS * len(parts)

    for rows in (*range(1, 300), 1000, 10**5):
        parts = split(rows, fitting)
        assert set(parts) <= set(fitting)
        assert sum(parts[:-1]) < rows <= sum(parts)
        padded = [fitting[-1]] * (rows // fitting[-1])
        padded += [next(size for size in fitting if size >= rows % fitting[-1])] if rows % fitting[-1] else []
        assert cost(parts) <= cost(padded)


def test_no_more_rows_are_tried_than_there_is_time_for():
    now = iter(range(100))
    with torch.inference_mode():
        grouped = GroupedLinear(torch.zeros(3, 7, 13), torch.zeros(3, 7), False, 4.5, lambda: next(now))
    assert set(grouped.rows[torch.get_num_threads()]) <= {TYPICAL_ROWS, *TRIED_ROWS[:5]}
    assert next(now) == 6
