"""Ranks: one monotone scale for all scores, without ties far out, on which independent scores follow a known law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest

from dubio.uncertainty.detection.ecdf import Ranks, RankTable, composite
from dubio.uncertainty.errors import CalibrationSetTooSmall

SELECT = Ranks.fit(torch.tensor([3.0, 1.0, 2.0, 5.0, 9.0]))
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def test_ranks_are_the_logarithms_of_the_shares_that_are_as_large_or_larger():
    ranks = SELECT(torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0])).tolist()
    assert ranks == pytest.approx([-math.log(share) for share in (5 / 5, 4 / 5, 3 / 5, 2 / 5, 1 / 5)], abs=1e-15)


def test_between_two_select_scores_the_share_is_interpolated():
    ranks = SELECT(torch.tensor([1.5, 4.0, 8.0])).tolist()
    assert ranks == pytest.approx([-math.log(share) for share in (4.5 / 5, 2.5 / 5, 1.25 / 5)])


def test_above_the_largest_the_rank_goes_on_and_below_the_smallest_it_is_nothing():
    # The spread from the middle score to the largest is 6.
    assert SELECT(torch.tensor([15.0])).item() == pytest.approx(math.log(5) * (1 + math.log(2)))
    assert SELECT(torch.tensor([-5.0, -1e30])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scores", [1, 2, 5])
def test_ranks_of_independent_scores_add_up_to_half_a_chi_squared_number(scores):
    # Fisher's law: with uniform p, -2 sum log p has 2 S degrees of freedom.
    generator = torch.Generator().manual_seed(scores)
    table = RankTable.of(
        [Ranks.fit(torch.randn(20_000, generator=generator, dtype=torch.float64)) for _ in range(scores)]
    )
    drawn_B = composite(table(torch.randn(scores, 5_000, generator=generator, dtype=torch.float64)))
    assert kstest(2 * drawn_B.numpy(), chi2(2 * scores).cdf).pvalue > 0.01


def test_the_composite_is_the_sum():
    assert composite(torch.tensor([[1.0, 0.0], [2.0, math.inf], [0.5, 3.0]])).tolist() == [3.5, math.inf]
    assert composite(torch.tensor([[1.0], [math.nan]])).isnan().all()


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(numbers, min_size=2, max_size=20, unique=True), st.lists(numbers, min_size=2, max_size=20))
def test_a_larger_score_never_has_a_smaller_rank(select, asked):
    ranks = Ranks.fit(torch.tensor(select, dtype=torch.float64))(torch.tensor(sorted(asked), dtype=torch.float64))
    assert bool((ranks.diff() >= -1e-12).all())
    assert bool(torch.isfinite(ranks).all())


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=20, unique=True),
    st.floats(1e-3, 1e12),
    st.floats(1.001, 1e6),
)
def test_two_far_scores_never_tie(select, excess, factor):
    ranks = Ranks.fit(torch.tensor(select, dtype=torch.float64))
    top, bottom = float(max(select)), float(min(select))
    near, far = ranks(torch.tensor([top + excess, top + excess * factor], dtype=torch.float64)).tolist()
    assert math.log(len(select)) < near < far
    assert ranks(torch.tensor([bottom - excess, bottom], dtype=torch.float64)).tolist() == [0.0, 0.0]


def test_equal_select_scores_count_once():
    assert torch.equal(Ranks.fit(torch.tensor([2.0, 1.0, 2.0, 1.0])).scores_N, torch.tensor([1.0, 2.0]).double())


def test_infinity_is_the_end_and_nan_stays_nan():
    ranks = SELECT(torch.tensor([math.inf, -math.inf, math.nan])).tolist()
    assert ranks[:2] == [math.inf, 0.0]
    assert math.isnan(ranks[2])


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0]])
def test_scores_that_do_not_vary_are_refused(scores):
    with pytest.raises(CalibrationSetTooSmall, match="at least 2 different scores"):
        Ranks.fit(torch.tensor(scores))


@pytest.mark.parametrize("scores", [[2.0, 1.0], [1.0, 1.0, 2.0], [1.0, math.nan, 2.0]])
def test_scores_out_of_order_are_refused(scores):
    with pytest.raises(CalibrationSetTooSmall, match="ascending"):
        Ranks(torch.tensor(scores, dtype=torch.float64))


def test_ranks_side_by_side_are_those_of_each_score_alone():
    generator = torch.Generator().manual_seed(0)
    select = [torch.randn(n, generator=generator, dtype=torch.float64).exp() for n in (2, 7, 400)]
    asked_PB = 30 * torch.randn(3, 1000, generator=generator, dtype=torch.float64)
    asked_PB[:, :2] = torch.stack([torch.stack([each.min(), each.max()]) for each in select])
    together_PB = RankTable.of([Ranks.fit(each) for each in select])(asked_PB)
    for each, asked_B, together_B in zip(select, asked_PB.numpy(), together_PB.numpy(), strict=True):
        ordered = np.sort(each.numpy())
        n = len(ordered)
        inside = -np.log(np.interp(asked_B, ordered, np.linspace(1, 1 / n, n)))
        spread = ordered[-1] - ordered[(n - 1) // 2]
        beyond = np.log(n) * np.log1p(np.maximum(asked_B - ordered[-1], 0) / spread)
        np.testing.assert_allclose(together_B, inside + beyond, rtol=1e-12, atol=1e-12)
