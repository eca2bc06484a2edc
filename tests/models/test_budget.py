from __future__ import annotations

import sys

import pytest
import torch

from dubio.models.budget import Budget
from dubio.models.errors import ModelError


def test_the_peak_counts_what_is_in_use_at_a_time():
    with torch.device("meta"), Budget("a step", sys.maxsize, sys.maxsize) as budget:
        x = torch.zeros(2**20)  # 4 MiB each
        for _ in range(10):
            x = x.view(2**10, 2**10).add(1).flatten()
    assert budget.peak == 2 * 2**22


def test_a_view_keeps_the_memory_that_it_views():
    with torch.device("meta"), Budget("a step", sys.maxsize, sys.maxsize) as budget:
        views = [torch.zeros(2**20)[:1] for _ in range(3)]
        views[0].add_(1)
    assert budget.peak == 3 * 2**22


def test_what_was_there_before_is_not_counted():
    x = torch.zeros(2**20, device="meta")
    with Budget("a step", sys.maxsize, sys.maxsize) as budget:
        x.view(2, -1)
        torch.split(x, 2**19)
        torch.cat([x[:1], x[:1]])
        torch.nn.functional.max_pool1d(torch.broadcast_tensors(x.view(1, -1))[0], 2**20, return_indices=True)
    assert budget.peak == 4 + 8  # a number and its place


def test_more_operations_or_bytes_than_allowed_end_the_step():
    with pytest.raises(ModelError, match="a step takes more than 3 operations"), Budget("a step", 3, 2**30):
        [torch.zeros(1, device="meta") for _ in range(4)]
    with pytest.raises(ModelError, match="a step takes more than 1024 bytes at a time"), Budget("a step", 9, 1024):
        torch.zeros(2**40, device="meta")
