"""What promotes a shadow: both kinds of evidence, and the law of the two ways to one of them, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from dubio.serving.shadow.comparison import Comparison, Pair, Rows
from dubio.serving.shadow.evidence import Evidence
from dubio.serving.store.accuracy import Accuracy

PAIR = Pair("digits", ("1", "a" * 64), ("2", "b" * 64), margin=0.05, epsilon=0.05)
UNKNOWN = Accuracy.begin(PAIR.margin, PAIR.epsilon)


def compared(known: Comparison, rows: int, *, changed: bool = False, newly: bool = False) -> Comparison:
    """After so many rows more, of which each is changed and newly flagged, or none."""
    return known.observe(Rows([changed] * rows, [False] * rows, [newly] * rows, 0.1, 0.1))


def test_without_a_store_labels_and_flags_have_to_reach_it_at_some_time() -> None:
    known = PAIR.begin()
    known = known.observe(Rows([False] * 400, [], [], 0.1, 0.1))
    assert known.unchanged.e_value > 20
    evidence = Evidence(known, None, "no store")
    assert (evidence.level, evidence.reached, evidence.e_value) == (20, False, 1)  # nothing is known about flags
    known = compared(known, 400)
    assert Evidence(known, None, "no store").reached
    known = compared(known, 200, changed=True, newly=True)
    assert Evidence(known, None, "no store").e_value < 1
    assert Evidence(known, None, "no store").reached


def test_with_a_store_there_are_two_ways_and_each_has_half_of_the_chance() -> None:
    known = compared(PAIR.begin(), 100)
    assert 20 < known.unchanged.e_value < 40
    assert Evidence(known, None, "no store").reached
    both = Evidence(known, UNKNOWN, None)
    assert not both.reached
    assert both.e_value == known.unchanged.e_value / 2
    assert Evidence(compared(known, 100), UNKNOWN, None).reached


def test_a_shadow_that_mends_more_labels_than_the_margin_is_promoted_by_true_labels() -> None:
    known = PAIR.begin()
    for row in range(300):  # a tenth of the labels change
        known = compared(known, 1, changed=row % 10 == 0)
    assert not Evidence(known, UNKNOWN, None).reached
    accuracy = UNKNOWN
    for row in range(300):
        accuracy = accuracy.observe(live=row % 10 != 0, shadow=True)
    evidence = Evidence(known, accuracy, None)
    assert evidence.reached
    assert evidence.e_value == min(accuracy.e_value / 2, known.unflagged.e_value)
    newly = compared(known, 300, newly=True)  # it flags too much: accuracy does not make up for it
    assert not Evidence(compared(PAIR.begin(), 300, newly=True), accuracy, None).reached
    assert Evidence(newly, accuracy, None).e_value < 1
    spoilt = accuracy.correct((False, True), (True, False))
    assert spoilt.e_value < accuracy.e_value


@pytest.mark.parametrize(("mended", "spoilt"), [(0.0, 0.05), (0.1, 0.15)])
def test_a_shadow_that_is_just_too_bad_is_seldom_promoted(mended: float, spoilt: float) -> None:
    """Although both ways are looked at after every ten rows."""
    generator, streams, promoted = np.random.default_rng(0), 40, 0
    for _ in range(streams):
        drawn = generator.random(600)
        second, first = drawn < mended, (drawn >= mended) & (drawn < mended + spoilt)
        known, accuracy = PAIR.begin(), UNKNOWN
        for start in range(0, 600, 10):
            part = slice(start, start + 10)
            known = known.observe(Rows((second | first)[part].tolist(), [False] * 10, [False] * 10, 0.1, 0.1))
            for live, shadow in zip(~second[part], ~first[part], strict=True):
                accuracy = accuracy.observe(live=bool(live), shadow=bool(shadow))
            if Evidence(known, accuracy, None).reached:
                promoted += 1
                break
    assert binomtest(promoted, streams, PAIR.epsilon, alternative="greater").pvalue > 0.01
