from __future__ import annotations

import math

import pytest
from scipy.stats import betabinom

from dubio.training.report import words
from dubio.training.report.content import Acceptance, OutOfDistribution, Report, Requirement
from dubio.training.report.measure import rate
from dubio.uncertainty import FlagEProcess
from tests.training.report.conftest import Written


def _required(content: Report, acceptances: list[Acceptance] | None = None) -> list[Requirement]:
    taken = content.acceptances if acceptances is None else acceptances
    return words.requirements(content.answers, content.promise, taken, content.label_sets, content.out_of_distribution)


def test_promises_about_answers_are_asked_of_a_new_version(written: Written):
    accepted = Acceptance(
        risk=0.1,
        delta=0.05,
        confidence="probability",
        threshold=0.9,
        calibration_rows=100,
        reason=None,
        advice=None,
        accepted=rate(80, 100),
        wrong=rate(2, 80),
        wrong_by_class=None,
        consistent=True,
        resplits=None,
        no_resplits="none",
    )
    due = {each.figure: each for each in _required(written.content, [accepted])}
    errors = due["errors among accepted rows at a risk of 0.1"]
    assert (errors.relation, errors.bound) == ("at most", 0.1)
    taken = due["accepted test rows at a risk of 0.1"]
    assert (taken.relation, taken.bound) == ("at least", (0.8 + accepted.accepted.low) / 2)
    sets, covered = written.content.label_sets, due["test rows covered by their label set"]
    missing = sets.calibration_rows + 1 - math.ceil((sets.calibration_rows + 1) * 0.95)
    law = betabinom(sets.covered.rows, missing, sets.calibration_rows + 1 - missing)
    most = round((1 - covered.bound) * sets.covered.rows)
    assert covered.relation == "at least"
    assert law.sf(most - 1) >= 0.01 > law.sf(most)
    refused = accepted.model_copy(update={"accepted": None, "reason": "too_few_rows"})
    assert not [each for each in _required(written.content, [refused]) if "accepted" in each.figure]


def test_a_new_version_may_lose_a_standard_error(written: Written):
    content = written.content
    due = {each.figure: each for each in _required(content)}
    mc = content.answers["MC dropout"]
    accuracy, ece = due["MC dropout: accuracy"], due["MC dropout: ece"]
    middle = (mc.after.accuracy.value + mc.after.accuracy.low) / 2
    assert (accuracy.relation, accuracy.bound) == ("at least", middle)
    assert (ece.relation, ece.bound) == ("at most", (mc.after.ece.value + mc.after.ece.high) / 2)
    worst = min(mc.by_class, key=lambda each: each.figures.accuracy.value).figures.accuracy
    assert due["MC dropout: accuracy of the worst class"].bound == (worst.value + worst.low) / 2
    noise = content.out_of_distribution[-1].flagged
    assert due["flagged among uniform noise"].bound == (noise.rate + noise.low) / 2
    promise, flagged = content.promise, due["flagged test rows"]
    alarms = round(promise.level * (promise.calibration_rows + 1))
    law = betabinom(promise.measured.rows, alarms, promise.calibration_rows + 1 - alarms)
    most = round(flagged.bound * promise.measured.rows)
    assert law.sf(most - 1) >= 0.01 > law.sf(most)
    # This very version passes.
    assert all(
        mc.after.model_dump()[figure]["value"] >= due[f"MC dropout: {figure}"].bound
        if due[f"MC dropout: {figure}"].relation == "at least"
        else mc.after.model_dump()[figure]["value"] <= due[f"MC dropout: {figure}"].bound
        for figure in ("accuracy", "nll", "brier", "aurc")
    )


def test_the_monitor_is_timed_for_the_strangers_that_are_flagged_least(written: Written):
    seen = OutOfDistribution(name="seen", flagged=rate(100, 100), auroc=1.0, fpr95=0.0)
    hidden = OutOfDistribution(name="hidden", flagged=rate(40, 100), auroc=0.9, fpr95=0.1)
    told = words.monitoring(written.content.promise, [seen, hidden])
    assert (told.alpha, told.alarm_at) == (0.05, pytest.approx(20))
    base = written.content.promise.measured.rate
    assert [each["flagged"] for each in told.delays] == pytest.approx(
        [0.95 * base + 0.05 * 0.4, 0.9 * base + 0.1 * 0.4, 0.8 * base + 0.2 * 0.4]
    )
    delays = [each["median_inputs"] or float("inf") for each in told.delays]
    assert delays == sorted(delays, reverse=True)
    assert FlagEProcess(alpha=told.alpha, epsilon=told.epsilon).observe([True] * 20).alarm is not None


def test_without_strangers_nothing_is_timed(written: Written):
    assert words.monitoring(written.content.promise, []).delays == []


def test_each_rule_names_an_article_and_a_part_of_the_plan():
    parts = ("description of modifications", "modification protocol", "impact assessment")
    assert all(rule.article_13.startswith("13(3)") for rule in words.RULES)
    assert all(rule.change_plan.startswith(parts) for rule in words.RULES)
    told = " ".join(rule.change_plan for rule in words.RULES)
    assert all(part in told for part in parts)
    assert any(rule.article_15.startswith("15(3)") for rule in words.RULES)
    assert any(rule.article_15.startswith("15(4)") for rule in words.RULES)
