"""The work before the first site, against products that are counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.execution.flops import work_before_first_site


def _work(network: nn.Module, x: Tensor, *sites: str) -> float | None:
    network.eval()
    return work_before_first_site(audit(network, x, Selection(sites or None)), x)


def test_the_work_before_the_first_site_is_counted():
    # Products of 6 x 10, 10 x 20 and 20 x 3 numbers; the site comes after the second.
    network = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    assert _work(network, torch.randn(1, 6)) == pytest.approx((60 + 200) / (60 + 200 + 60))
    assert _work(nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)), torch.randn(1, 6)) == 0


def test_convolutions_count_and_a_site_that_is_left_out_does_not():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Dropout2d(0.1), nn.Flatten(), nn.Linear(36, 9), nn.Dropout(0.5), nn.Linear(9, 3)
    )
    x = torch.randn(1, 1, 5, 5)
    convolution, hidden, head = 9 * 9 * 4, 36 * 9, 9 * 3
    whole = convolution + hidden + head
    assert _work(network, x) == pytest.approx(convolution / whole)
    assert _work(network, x, "4") == pytest.approx((convolution + hidden) / whole)


def test_where_nothing_is_multiplied_nothing_is_said():
    assert _work(nn.Sequential(nn.Dropout(0.5), nn.ReLU()), torch.randn(1, 6)) is None


def test_no_hook_stays_behind():
    network = nn.Sequential(nn.Linear(6, 10), nn.Dropout(0.5), nn.Linear(10, 3))
    call = nn.Module.__call__
    _work(network, torch.randn(1, 6))
    assert nn.Module.__call__ is call
