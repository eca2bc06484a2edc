"""The evidence for a promotion: its law by simulation, and states that no traffic led to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from dubio.serving.errors import InvalidState
from dubio.serving.shadow.comparison import Comparison, Mean, Pair, Rows
from dubio.serving.shadow.evidence import Evidence

PAIR = Pair("digits", ("1", "a" * 64), ("2", "b" * 64), margin=0.05, epsilon=0.05)
NAMES = [PAIR.model, *PAIR.live, *PAIR.shadow]


def stream(generator: np.random.Generator, length: int, changed: float, newly: float) -> Comparison:
    """A comparison of so many rows, in requests of 25, of which such shares change for the worse."""
    known = PAIR.begin()
    disagree, new = generator.random(length) < changed, generator.random(length) < newly
    live = (generator.random(length) < 0.04) & ~new
    for start in range(0, length, 25):
        part = slice(start, start + 25)
        shadow = (new | live)[part]
        known = known.observe(Rows(disagree[part].tolist(), live[part].tolist(), shadow.tolist(), 0.01, 0.02))
    return known


def reaches(known: Comparison) -> bool:
    """Whether it promotes where there are no true labels."""
    return Evidence(known, None, "no store").reached


@pytest.mark.parametrize(("changed", "newly"), [(0.05, 0.0), (0.0, 0.05)])
def test_a_shadow_that_is_just_too_bad_is_seldom_promoted(changed: float, newly: float) -> None:
    """Whichever of both is as bad as the margin, and although somebody looks after every request."""
    generator, streams = np.random.default_rng(0), 50
    reached = sum(reaches(stream(generator, 1500, changed, newly)) for _ in range(streams))
    assert binomtest(reached, streams, PAIR.epsilon, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("changed", "newly", "rows"), [(0.0, 0.0, 150), (0.01, 0.01, 350)])
def test_a_good_one_is_known_soon(changed: float, newly: float, rows: int) -> None:
    generator = np.random.default_rng(1)
    reached = [reaches(stream(generator, rows, changed, newly)) for _ in range(15)]
    assert sum(reached) >= 8


def test_accuracy_and_flag_rate_are_worse_by_no_more_than_what_changes() -> None:
    generator = np.random.default_rng(2)
    for _ in range(50):
        truth, live, shadow = generator.integers(0, 3, (3, 40))
        assert (shadow == truth).mean() >= (live == truth).mean() - (live != shadow).mean()
        before, after = generator.random((2, 40)) < generator.random((2, 1))
        assert after.mean() <= before.mean() + (after & ~before).mean()


def test_all_is_counted() -> None:
    known = PAIR.begin()
    assert known.rows == 0
    assert known.live_seconds.interval is None
    known = known.observe(Rows([True, False], [True, False], [True, True], 1.0, 3.0))
    known = known.observe(Rows([False, False, True], [], [False] * 3, 2.0, 5.0))  # the live one makes no promise
    assert (known.rows, known.disagreements, known.judged) == (5, 2, 2)
    assert (known.live_flagged, known.shadow_flagged, known.newly_flagged) == (1, 2, 1)
    assert known.unchanged == PAIR.begin().unchanged.observe([False, True, True, True, False])
    assert known.unflagged == PAIR.begin().unflagged.observe([True, False])
    assert known.shadow_seconds.interval == pytest.approx((4, 4 - 1.96, 4 + 1.96))  # deviation sqrt 2, of two


def test_the_mean_has_the_interval_of_the_normal_law() -> None:
    values = np.random.default_rng(3).exponential(size=500)
    mean = Mean()
    for value in values.tolist():
        mean = mean.add(value)
    half = 1.96 * values.std(ddof=1) / math.sqrt(500)
    assert mean.interval == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_a_restart_goes_on_with_the_same_numbers() -> None:
    known = stream(np.random.default_rng(4), 200, 0.02, 0.01)
    assert PAIR.load(known.dump()) == known
    assert PAIR.load(PAIR.begin().dump()) == PAIR.begin()
    other = replace(PAIR, shadow=("2", "c" * 64))
    assert PAIR.file != other.file
    assert len({pair.digest for pair in (PAIR, other, replace(PAIR, margin=0.1), replace(PAIR, epsilon=0.1))}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"pair": [*NAMES[:-1], "c" * 64]}, "other versions"),
        ({"disagreements": 101}, "counts"),
        ({"judged": 99}, "counts"),
        ({"live_flagged": 101}, "counts"),
        ({"newly_flagged": 100}, "counts"),
        ({"newly_flagged": -1}, "newly_flagged"),
        ({"unchanged": {}}, "state of one of"),
        ({"live_seconds": {"count": 1, "total": -1.0, "squares": 1.0}}, "live_seconds.total"),
        ({"more": 1}, "more"),
    ],
)
def test_a_state_that_no_traffic_led_to_is_refused(change: dict[str, Any], message: str) -> None:
    state = json.loads(stream(np.random.default_rng(5), 100, 0.02, 0.01).dump())
    with pytest.raises(InvalidState, match=message):
        PAIR.load(json.dumps({**state, **change}).encode())


def test_evidence_of_other_terms_is_refused() -> None:
    state = PAIR.begin().dump()
    for other in (replace(PAIR, margin=0.1), replace(PAIR, epsilon=0.01)):
        with pytest.raises(InvalidState, match="another `shadow_margin`"):
            other.load(state)
    for text in (b"", state[:50], b"[]"):
        with pytest.raises(InvalidState):
            PAIR.load(text)
