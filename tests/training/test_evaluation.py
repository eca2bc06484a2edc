from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dubio.models import Predictor, load
from dubio.training import Digits, evaluation


@pytest.fixture(scope="module")
def predictor(runs: Path) -> Predictor:
    return load(runs / "digits_mlp" / "model.ckpt")


def test_the_figures_are_those_of_the_test_split(predictor: Predictor, digits: Digits):
    measured = evaluation.measure(predictor, digits)
    x, labels = digits.raw("test")
    answer, rows = predictor.predict(x), np.arange(len(labels))
    assert measured.rows == len(labels)
    assert measured.accuracy == pytest.approx((answer.label == labels.numpy()).mean())
    assert measured.mc_accuracy == pytest.approx((answer.mc_label == labels.numpy()).mean())
    assert measured.nll == pytest.approx(-np.log(answer.probabilities[rows, labels]).mean(), rel=1e-4)
    assert measured.mc_nll == pytest.approx(-np.log(answer.mc_mean[rows, labels]).mean(), rel=1e-4)
    assert abs(measured.flagged - answer.flagged.sum()) <= 1
    assert measured.false_alarm_rate == measured.flagged / measured.rows


def test_the_table_tells_figures_and_promise(predictor: Predictor):
    measured = evaluation.Measured(rows=200, accuracy=0.975, mc_accuracy=0.97, nll=0.1, mc_nll=0.09, flagged=7)
    written = io.StringIO()
    Console(width=200, file=written).print(evaluation.table(predictor, measured, Path("runs/digits/model.ckpt")))
    text = written.getvalue()
    for said in (
        "97.50% deterministic, 97.00% MC dropout",
        "at most 5.0% false alarms, with confidence 95%",
        f"p-value at or below {predictor.detector.calibration.level:.4f}",
        f"{len(predictor.detector.calibration.scores_N)} calibration rows",
        "7 of 200 test rows flagged (3.5%)",
        "dropout 0.5, dropout 0.4, dropout 0.3",
        "runs/digits/model.ckpt",
    ):
        assert said in text


def test_a_probability_of_zero_does_not_make_the_loss_infinite():
    assert np.isfinite(evaluation._nll(np.array([[0.0, 1.0]], dtype=np.float32), np.array([0])))
