"""The interval of a rate, against scipy's and by its own definition."""

from __future__ import annotations

import pytest
from scipy.stats import beta, binom

from dubio.uncertainty.detection.interval import clopper_pearson, largest_count


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (0, 20), (20, 20), (10, 175), (3, 36), (800, 20_000)])
def test_it_is_the_quantile_of_the_beta_distribution(count: int, rows: int, confidence: float):
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, count, rows - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, rows - count) if count < rows else 1.0
    assert clopper_pearson(count, rows, confidence) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_it_holds_the_true_rate_as_often_as_it_says(rate: float):
    rows = 40
    held = [low <= rate <= high for low, high in (clopper_pearson(count, rows) for count in range(rows + 1))]
    assert sum(binom.pmf(count, rows, rate) for count in range(rows + 1) if held[count]) >= 0.95


@pytest.mark.parametrize(("count", "rows"), [(-1, 5), (6, 5), (0, 0)])
def test_a_count_that_is_none_is_refused(count: int, rows: int):
    with pytest.raises(ValueError, match="Expected a count"):
        clopper_pearson(count, rows)


@pytest.mark.parametrize(("rows", "rate"), [(0, 0.1), (1, 0.5), (148, 0.02), (149, 0.02), (5000, 0.02), (30000, 0.4)])
def test_the_largest_count_in_a_tail_is_scipys(rows: int, rate: float):
    for tail in (0.01, 0.05, 0.5):
        count = largest_count(rows, rate, tail)
        assert binom.cdf(count, rows, rate) <= tail * (1 + 1e-9)
        assert binom.cdf(count + 1, rows, rate) > tail * (1 - 1e-9)
