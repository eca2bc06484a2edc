"""What docs/dropout.md claims and no other test proves."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from torch import nn

from dubio.models import DirectDropout


def test_exactly_half_of_1024_units_are_dropped_once_in_forty_times():
    exact = math.comb(1024, 512) / 2**1024
    assert exact == pytest.approx(0.0249, abs=5e-5)
    assert float(binom.pmf(512, 1024, 0.5)) == pytest.approx(exact)
    torch.manual_seed(0)
    draws = 8000
    dropped = (nn.Dropout(0.5).train()(torch.ones(draws, 1024)) == 0).sum(1).double()
    share = float((dropped == 512).double().mean())
    assert abs(share - exact) < 4.5 * (exact * (1 - exact) / draws) ** 0.5
    # Mean and standard deviation of the binomial: 512 and 16.
    assert abs(float(dropped.mean()) - 512) < 4.5 * 16 / draws**0.5
    assert abs(float(dropped.std()) - 16) < 4.5 * 16 / (2 * draws) ** 0.5
    # 19 of 20 times between 481 and 543.
    assert float(binom.cdf(543, 1024, 0.5) - binom.cdf(480, 1024, 0.5)) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_a_step_behind_inverted_dropout_is_longer_by_one_over_one_minus_p(rate: float):
    """For the same error that comes back, the same mask and the same activations."""
    values = torch.rand(6, 50, dtype=torch.float64) + 0.1
    gradients = []
    for dropout in (DirectDropout(rate), nn.Dropout(rate)):
        layer = nn.Linear(50, 3).double()
        torch.manual_seed(1)
        layer(dropout.train()(values)).sum().backward()
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0] / (1 - rate))
    assert float(gradients[0].abs().max()) > 0


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_before_batch_norm_shifts_the_variance_and_behind_it_does_not(rate: float):
    """Li 2019: what enters in training has the variance 1 / (1 - p), in eval mode 1."""
    torch.manual_seed(0)
    x = torch.randn(20_000, 8)
    before = nn.Sequential(nn.Dropout(rate), nn.BatchNorm1d(8, momentum=1.0)).train()
    before(x)
    torch.testing.assert_close(before[1].running_var, torch.full((8,), 1 / (1 - rate)), rtol=0.06, atol=0)
    # In eval mode the normalised values are too small by the square root of that.
    spread = before.eval()(x).std(0)
    torch.testing.assert_close(spread, torch.full((8,), (1 - rate) ** 0.5), rtol=0.04, atol=0)
    behind = nn.Sequential(nn.BatchNorm1d(8, momentum=1.0), nn.Dropout(rate)).train()
    behind(x)
    torch.testing.assert_close(behind.eval()(x).std(0), torch.ones(8), rtol=0.02, atol=0)


def test_spatial_dropout_removes_what_neighbours_share():
    """Of an image whose neighbours are equal, single dropped pixels can be filled in and a dropped channel cannot."""
    torch.manual_seed(0)
    image = torch.randn(64, 16, 1, 1).expand(64, 16, 6, 6)
    single = nn.Dropout(0.5).train()(image)
    whole = nn.Dropout2d(0.5).train()(image)
    lost = [(dropped == 0).all(-1).all(-1).double().mean() for dropped in (single, whole)]
    assert float(lost[0]) == 0.0
    assert abs(float(lost[1]) - 0.5) < 4.5 * (0.25 / 1024) ** 0.5
