from __future__ import annotations

import re

from dubio.training.report import answer_promises_markup, content
from dubio.training.report.measure import rate


def _words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def _acceptance(**changes: object) -> content.Acceptance:
    told = content.Acceptance(
        risk=0.02,
        delta=0.05,
        confidence="mc_margin",
        threshold=0.75,
        calibration_rows=300,
        reason=None,
        advice=None,
        accepted=rate(90, 100),
        wrong=rate(1, 90),
        wrong_by_class=None,
        consistent=True,
        resplits=content.AcceptanceResplits(
            count=400,
            calibration_rows=300,
            measured_rows=100,
            promised=380,
            broken=rate(8, 400),
            mean_accepted=0.85,
            mean_wrong=0.0125,
            within=rate(361, 380),
            chance=0.9987,
            consistent=True,
        ),
        no_resplits=None,
    )
    return told.model_copy(update=changes)


def _told(**changes: object) -> str:
    return _words(answer_promises_markup.acceptances([_acceptance(**changes).model_dump(mode="json")]))


def test_a_promise_and_what_was_measured_stand_side_by_side():
    told = _told()
    assert "at most 2.0% of the accepted answers are wrong, with confidence 95%" in told
    assert "The confidence is the margin of the members' mean probability, of at least 0.7500." in told
    assert "90 of 100: 90.0%" in told
    assert "1 of 90: 1.1% (0.0% to 6.0%) . Kept" in told or "1 of 90: 1.1% (0.0% to 6.0%). Kept" in told
    assert "8 of 400: 2.0%" in told
    assert "at most 5%, and then so many or more have a chance of 99.87% (binomial)" in told
    assert "85.0% of the measured rows were accepted, 1.25% of these were wrong" in told
    assert "361 of 380" in told


def test_a_refuted_promise_is_told_loudly():
    assert "Not kept : that REFUTES it" in _told(wrong=rate(20, 90), consistent=False)


def test_a_threshold_that_all_reach_is_told_as_such():
    assert "Any confidence is enough" in _told(threshold=-1.0)


def test_no_promise_comes_with_the_reason_and_the_cure():
    told = _told(reason="too_few_rows", advice="calibrate on about <500> rows", threshold=None)
    assert "At a risk of 2.0%: no promise (too few rows)." in told
    assert "calibrate on about &lt;500&gt; rows" in told
    assert "promises nothing" in _words(answer_promises_markup.acceptances([]))


def _sets(**changes: object) -> str:
    told = content.LabelSets(
        score="aps",
        by="all",
        coverage=0.95,
        calibration_rows=300,
        unbounded=[],
        covered=rate(97, 100),
        by_class=[rate(50, 50), None],
        sizes=[80, 20],
        mean_size=1.2,
        chance=0.8123,
        consistent=True,
        resplits=None,
        no_resplits="of a reason",
    ).model_copy(update=changes)
    return _words(answer_promises_markup.label_sets(told.model_dump(mode="json"), ["<a>", "b"]))


def test_label_sets_tell_their_promise_coverage_and_size():
    told = _sets()
    assert "the label sets (APS) of at least 95.0% of inputs like the 300 calibration rows" in told
    assert "97 of 100: 97.0%" in told
    assert "1.20 classes on average" in told
    assert "missed with probability 81.23%; below 1% would refute the promise. Kept" in told
    assert "No resplits: of a reason." in told
    assert "classes in the set test rows 1 80 2 20" in told
    assert "&lt;a&gt; 50 of 50: 100.0%" in told


def test_sets_of_every_class_and_no_sets_are_told():
    assert "too few calibration rows of &lt;a&gt;" in _sets(unbounded=["<a>"])
    assert "REFUTES" in _sets(consistent=False, chance=0.0001)
    assert "promises no label sets" in _words(answer_promises_markup.label_sets(None, []))
