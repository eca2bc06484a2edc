"""Ranks: one monotone scale for all scores, without ties far out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dubio.uncertainty.detection.ecdf import Ranks, RankTable
from dubio.uncertainty.errors import CalibrationSetTooSmall

SELECT = Ranks.fit(torch.tensor([3.0, 1.0, 2.0, 5.0, 9.0]))
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def test_ranks_of_the_select_scores_are_evenly_spaced():
    assert SELECT(torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0])).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_between_two_select_scores_the_rank_is_interpolated():
    assert SELECT(torch.tensor([1.5, 4.0, 8.0])).tolist() == [0.125, 0.625, 0.9375]


def test_beyond_the_ends_the_rank_goes_on():
    # The spread from the middle score to the largest is 6.
    above, below = SELECT(torch.tensor([15.0, -5.0])).tolist()
    assert above == pytest.approx(1 + math.log(2))
    assert below == pytest.approx(-math.log(2))


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
    assert 1.0 < near < far
    near, far = ranks(torch.tensor([bottom - excess, bottom - excess * factor], dtype=torch.float64)).tolist()
    assert 0.0 > near > far


def test_equal_select_scores_count_once():
    assert torch.equal(Ranks.fit(torch.tensor([2.0, 1.0, 2.0, 1.0])).scores_N, torch.tensor([1.0, 2.0]).double())


def test_infinity_is_the_end_and_nan_stays_nan():
    ranks = SELECT(torch.tensor([math.inf, -math.inf, math.nan])).tolist()
    assert ranks[:2] == [math.inf, -math.inf]
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
        inside = np.interp(asked_B, ordered, np.linspace(0, 1, len(ordered)))
        spread = ordered[-1] - ordered[(len(ordered) - 1) // 2]
        beyond = np.log1p(np.maximum(asked_B - ordered[-1], 0) / spread)
        beyond -= np.log1p(np.maximum(ordered[0] - asked_B, 0) / spread)
        np.testing.assert_allclose(together_B, inside + beyond, rtol=1e-12, atol=1e-12)
