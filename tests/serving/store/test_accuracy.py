"""What true labels say about two versions: counts, evidence, and corrections."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from dubio.serving.store.accuracy import Accuracy
from dubio.uncertainty.detection.martingale import FlagEProcess
from dubio.uncertainty.errors import UncertaintyError

NOTHING = Accuracy.begin(0.05, 0.05)
RIGHT = [*itertools.product([False, True], repeat=2)]


def test_rows_are_counted_and_their_differences_are_the_evidence() -> None:
    known = NOTHING
    for live, shadow in RIGHT:
        known = known.observe(live=live, shadow=shadow)
    assert (known.rows, known.live, known.shadow) == (4, 2, 2)
    assert known.process == NOTHING.process.observe([0, 1, -1, 0])
    assert known.e_value == known.process.e_value


@pytest.mark.parametrize("before", RIGHT)
@pytest.mark.parametrize("after", RIGHT)
def test_a_correction_gives_the_counts_that_the_right_label_would_have_given(
    before: tuple[bool, bool], after: tuple[bool, bool]
) -> None:
    corrected = NOTHING.observe(live=before[0], shadow=before[1]).correct(before, after)
    told = NOTHING.observe(live=after[0], shadow=after[1])
    assert (corrected.rows, corrected.live, corrected.shadow) == (1, told.live, told.shadow)
    against = (after[1] - after[0]) < (before[1] - before[0])
    assert (corrected.e_value < NOTHING.observe(live=before[0], shadow=before[1]).e_value) == against


def test_corrections_raise_no_more_false_alarms() -> None:
    """A shadow that is just too bad; a tenth of the labels is wrong at first, in its favour, and corrected later."""
    generator, streams, alarms = np.random.default_rng(1), 60, 0
    for _ in range(streams):
        known = NOTHING
        for drawn, late in generator.random((600, 2)):
            spoilt = drawn < 0.05
            if spoilt and late < 0.1:
                known = known.observe(live=True, shadow=True).correct((True, True), (True, False))
            else:
                known = known.observe(live=True, shadow=not spoilt)
        alarms += known.process.alarm is not None
    assert binomtest(alarms, streams, 0.05, alternative="greater").pvalue > 0.01


def test_a_state_goes_on_with_the_same_numbers() -> None:
    known = NOTHING.observe(live=True, shadow=False).observe(live=False, shadow=True)
    assert Accuracy.load(json.loads(json.dumps(known.dump()))) == known
    with pytest.raises(UncertaintyError, match="PairedEProcess"):
        Accuracy.load({**known.dump(), "process": FlagEProcess().dump()})
