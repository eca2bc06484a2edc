"""What makes two versions the same for the evidence, and what a false alarm may cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dubio import models
from dubio.models import Ensemble, Predictor
from dubio.serving.drift.subject import Subject
from dubio.serving.repository.registry import ServedModel


def subject(predictor: Predictor | Ensemble) -> Subject | None:
    return Subject.of(ServedModel("bars", "1", predictor))


def test_the_same_checkpoint_is_the_same_subject_and_another_is_not(
    predictor: Predictor, checkpoint: Path, second_checkpoint: Path
) -> None:
    watched = subject(predictor)
    assert watched is not None
    assert watched == subject(models.load(checkpoint))
    assert (watched.alpha, watched.delta, watched.rows, watched.calibrations) == (0.05, 0.05, 300, 2)
    other = subject(models.load(second_checkpoint))
    assert other is not None
    assert other.checkpoint != watched.checkpoint
    without_rule = subject(replace(predictor, stopping=None))
    assert without_rule is not None
    assert (without_rule.checkpoint == watched.checkpoint, without_rule.calibrations) == (False, 1)


def test_of_an_ensemble_flags_are_watched_and_without_a_promise_nothing_is(
    predictor: Predictor, second_checkpoint: Path
) -> None:
    ensemble = Ensemble.build([predictor, models.load(second_checkpoint)])
    watched = subject(ensemble)
    assert watched is not None
    assert (watched.alpha, watched.rows) == (0.05, None)
    assert subject(replace(predictor, detector=None)) is None
    assert subject(replace(ensemble, joint=None)) is None


@pytest.mark.parametrize(
    ("rows", "calibrations", "expected"),
    [(300, 1, 0.01 + 0.05 + 0.01), (300, 2, 0.01 + 2 * (0.05 + 0.01)), (None, 1, 0.01 + 0.05)],
)
def test_a_false_alarm_costs_what_its_parts_do(rows: int | None, calibrations: int, expected: float) -> None:
    assert Subject("m", "1", "", 0.05, 0.05, rows, calibrations).false_alarm(0.01) == pytest.approx(expected)
    assert Subject("m", "1", "", 0.05, 0.9, rows, calibrations).false_alarm(0.5) == 1
