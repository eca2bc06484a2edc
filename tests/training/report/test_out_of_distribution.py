"""Strangers: what is made, and that it is the same each time."""

from __future__ import annotations

import torch

from dubio.training import Digits, Table
from dubio.training.report.out_of_distribution import out_of_distribution


def test_columns_of_different_rows_hold_what_occurs(table: Table):
    x, _ = table.raw("test")
    mixed = out_of_distribution(table, x)["columns of different rows"]
    assert torch.equal(mixed[:, 0].sort().values, x[:, 0].sort().values)
    assert torch.equal(mixed[:, 2:].sum(0), x[:, 2:].sum(0))
    assert not torch.equal(mixed, x)


def test_strangers_to_images_are_named_and_the_same_each_time(digits: Digits):
    x, _ = digits.raw("test")
    found, again = out_of_distribution(digits, x), out_of_distribution(digits, x)
    assert list(found) == ["photograph patches", "inverted", "uniform noise"]
    for name, rows in found.items():
        assert torch.equal(rows, again[name])
        assert rows.shape[1:] == x.shape[1:]
