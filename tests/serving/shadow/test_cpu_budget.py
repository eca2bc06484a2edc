from __future__ import annotations

import numpy as np
import pytest

from dubio.serving.shadow.cpu_budget import CPUBudget


@pytest.mark.parametrize(("rate", "busy"), [(0.25, True), (2.0, True), (0.1, False)])
def test_what_is_taken_stays_within_the_rate(rate: float, busy: bool) -> None:
    """By a clock that is made up: but for one second's saving and the last request."""
    generator = np.random.default_rng(0)
    now, taken, largest, waited = 100.0, 0.0, 0.0, 0.0
    budget = CPUBudget(rate, now)
    for _ in range(500):
        wait = budget.wait(now)
        waited += wait
        now += wait + (0 if busy else generator.exponential(5.0))  # an idle time saves up no more than a second
        cost = generator.exponential(0.05)
        now += cost
        budget.spend(cost, now)
        taken, largest = taken + cost, max(largest, cost)
        assert taken <= rate * (now - 100 + 1) + largest + 1e-9
    if busy and rate < 1:
        assert taken == pytest.approx(rate * (now - 100), rel=0.05)  # and it is used
    assert (waited > 0) == (rate < 1)
