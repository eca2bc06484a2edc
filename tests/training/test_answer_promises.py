"""Promises about answers: what calibration makes of its settings, and what is said where the data do not carry it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dubio.models import NetworkSpec, Predictor
from dubio.training import CalibrationSettings, Digits, TrainingError, answer_promises, calibrate
from dubio.training.cli.main import main
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.serialization import MOST_RISKS
from tests.training.conftest import CONFIG, QUICK


@pytest.fixture(scope="module")
def predictor(runs) -> Predictor:
    from dubio.models import load

    return load(runs / "digits_mlp" / "model.ckpt", strategy="chain")


def settings(**given: object) -> CalibrationSettings:
    return CalibrationSettings(num_samples=4, scores=("mutual_information",), stages=(2,), **given)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"risk": 0.0}, r"`calibration.risk` to be in \(0, 1\), but got 0.0"),
        ({"risk": (0.02, 1.0)}, r"`calibration.risk` to be in \(0, 1\), but got 1.0"),
        ({"risk": (0.1, 0.1)}, "different ones"),
        ({"risk": ()}, "different ones"),
        ({"risk": tuple(i / 100 for i in range(1, MOST_RISKS + 2))}, f"1 to {MOST_RISKS}"),
        ({"coverage": 1.0}, r"`calibration.coverage` to be in \(0, 1\), but got 1.0"),
    ],
)
def test_settings_that_promise_nothing_are_refused(given: dict, complaint: str):
    with pytest.raises(TrainingError, match=complaint):
        settings(**given)


def test_what_was_asked_for_is_calibrated(network: torch.nn.Module, network_spec: NetworkSpec, digits: Digits):
    asked = settings(risk=(0.3, 0.02), coverage=0.8, label_set="raps", label_set_by="predicted")
    predictor = calibrate(network.eval(), network_spec, digits, asked, measure_seconds=0)
    for promises in (predictor.promises, predictor.auto_promises):
        assert [each.risk for each in promises.acceptances] == [0.3, 0.02]
        # An untrained network errs nearly always.
        assert {each.refusal for each in promises.acceptances} == {"too_many_errors"}
        sets = promises.label_sets
        assert (sets.score, sets.by, sets.coverage, len(sets.quantiles_G)) == ("raps", "predicted", 0.8, 10)
    prediction = predictor.predict(digits.raw("test")[0][:5])
    assert prediction.accepted is None
    assert [each.reason for each in prediction.decisions] == ["too_many_errors"] * 2
    lines = answer_promises.caveats(predictor)
    assert "no answer is accepted at a risk of 0.3" in lines[0]
    assert "train a model that errs less" in lines[0]


def test_classes_with_too_few_rows_for_the_coverage_are_named(predictor: Predictor):
    sets = predictor.promises.label_sets
    by_class = replace(sets, by="class", quantiles_G=torch.full((10,), 0.5, dtype=torch.float64))
    by_class.quantiles_G[3] = torch.finfo(torch.float64).max
    told = answer_promises.caveats(replace(predictor, promises=replace(predictor.promises, label_sets=by_class)))
    assert (
        "of '3' the label sets hold too much: a coverage of 0.95 takes at least 19 calibration rows of each" in told[-1]
    )


def test_the_calibration_looks_at_no_test_row(predictor: Predictor, digits: Digits):
    """What is promised was counted on the calibration rows and on no other."""
    for promises in (predictor.promises, predictor.auto_promises):
        assert {each.rows for each in promises.acceptances} == {len(digits.splits["calibration"].labels)}
    x, labels = digits.raw("calibration")
    answers, flag = predictor.predict(x), predictor.detector.calibration
    assert isinstance(flag, Calibration)
    for rule, decision in zip(predictor.promises.acceptances, answers.decisions, strict=True):
        if rule.refusal:
            continue
        wrong = (answers.label != labels.numpy()) & decision.accepted
        # Calibration counts what rounding may move where it does most harm.
        assert abs(decision.accepted.sum() - rule.accepted) <= 2
        assert 0 <= rule.wrong - wrong.sum() <= 1


def test_the_fit_tells_the_second_promise(runs, capsys: pytest.CaptureFixture[str]):
    main(["test", "--config", CONFIG, "--runs", str(runs), *QUICK])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "promise 2" in told
    assert "label sets" in told
    assert "95.0% contain the true class, by lac" in told


def test_no_flagged_row_is_accepted_and_every_set_holds_the_mc_label(predictor: Predictor, digits: Digits):
    x = torch.cat([digits.raw("test")[0], 16 - digits.raw("test")[0][:50]])
    for samples in (None, "auto"):
        answers = predictor.predict(x, samples=samples)
        for decision in answers.decisions:
            assert decision.accepted is None or not (decision.accepted & answers.flagged).any()
            assert decision.accepted is None or not (decision.accepted & (answers.label != answers.mc_label)).any()
        assert answers.label_set[np.arange(len(x)), answers.mc_label].all()
