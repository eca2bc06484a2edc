from __future__ import annotations

import re

import pytest

from dubio.models.networks.validation import check_rates, check_sizes


def test_positive_sizes_and_rates_in_the_unit_interval_pass():
    check_sizes(widths=[1, 512], num_classes=(10,), features=1)
    check_rates(layers=3, rates=[0, 0.5, 1])
    check_rates(first=0, last=1.0)


@pytest.mark.parametrize("sizes", [[], [0], [3, -1]])
def test_sizes_below_one_are_refused_by_name_and_value(sizes: list[int]):
    with pytest.raises(ValueError, match=rf"`widths`.*positive.*{re.escape(str(sizes))}"):
        check_sizes(in_features=4, widths=sizes)


@pytest.mark.parametrize("rates", [[-0.1], [1.1], [float("nan")]])
def test_rates_outside_the_unit_interval_are_refused_by_name_and_value(rates: list[float]):
    with pytest.raises(ValueError, match=rf"`dense_rate`.*\[0, 1\].*{re.escape(str(rates))}"):
        check_rates(rate=0.5, dense_rate=rates[0])


def test_one_rate_a_layer_is_due():
    with pytest.raises(ValueError, match=r"`rates`.*each of 2 layers.*\[0.5\]"):
        check_rates(layers=2, rates=[0.5])
