"""Promises about answers: what calibration makes of its settings, and what is said where the data do not carry it."""

from __future__ import annotations

import math
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dubio.models import NetworkSpec, Predictor, load, save
from dubio.training import CalibrationSettings, Digits, TrainingError, answer_promises, calibrate
from dubio.training.cli.main import main
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.serialization import MOST_RISKS
from tests.training.conftest import CONFIG, QUICK


@pytest.fixture(scope="module")
def predictor(runs) -> Predictor:
    return load(runs / "digits_mlp" / "model.ckpt", strategy="chain")


def settings(**given: object) -> CalibrationSettings:
    return CalibrationSettings(num_samples=4, scores=("mutual_information",), stages=(2,), **given)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"risk": 0.0}, r"`calibration.risk` to be in \(0, 1\), but got 0.0"),
        ({"risk": (0.02, 1.0)}, r"`calibration.risk` to be in \(0, 1\), but got 1.0"),
        ({"risk": (0.1, 0.1)}, "different ones"),
        ({"risk": tuple(i / 100 for i in range(1, MOST_RISKS + 2))}, f"at most {MOST_RISKS}"),
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
    lines = answer_promises.caveats(predictor, digits, Path("model.ckpt"))
    assert "no answer is accepted at a risk of 0.3" in lines[0]
    assert "(too_many_errors); these rows carry a risk of 0." in lines[0]
    assert "dubio-train calibrate --ckpt_path model.ckpt --calibration.risk 0." in lines[1]


@pytest.mark.parametrize("risk", [None, ()])
def test_without_a_risk_nothing_is_promised_about_accepted_answers(
    predictor: Predictor, network: torch.nn.Module, network_spec: NetworkSpec, digits: Digits, risk: tuple | None
):
    held = calibrate(network.eval(), network_spec, digits, settings(risk=risk), measure_seconds=0)
    assert held.promises.acceptances == held.auto_promises.acceptances == ()
    for samples in (None, "auto", 3):
        (decision,) = held.predict(digits.raw("test")[0][:5], samples=samples).decisions
        assert (decision.accepted, decision.risk, decision.reason) == (None, None, "no_risk_promised")
    assert not [line for line in answer_promises.caveats(held, digits, Path("model.ckpt")) if "accepted" in line]
    with tempfile.TemporaryDirectory() as folder:
        save(held, None, Path(folder) / "model.ckpt")
        assert load(Path(folder) / "model.ckpt", strategy="chain").promises.acceptances == ()


@pytest.mark.slow
def test_the_advice_ends_in_a_command_that_makes_the_promise(runs: Path, digits: Digits, tmp_path: Path):
    """What is printed is run as it stands, and then there is nothing to be said any more."""
    shutil.copytree(runs / "digits_mlp", tmp_path / "digits_mlp")
    path = tmp_path / "digits_mlp" / "model.ckpt"
    config = yaml.safe_load((tmp_path / "digits_mlp" / "config.yaml").read_text())
    (tmp_path / "digits_mlp" / "config.yaml").write_text(yaml.safe_dump({**config, "runs": str(tmp_path)}))
    main(["calibrate", "--config", str(path.parent / "config.yaml"), "--calibration.risk", "[0.015,0.5]"])
    predictor = load(path, strategy="chain")
    refused, kept = predictor.promises.acceptances
    assert refused.refusal
    assert kept.refusal is None
    (told,) = answer_promises.caveats(predictor, digits, path)
    assert f": train anew with `--data.calibration {math.ceil(refused.rows_due / 17.97) / 100:g} " in told
    program, *arguments = shlex.split(told.partition("To promise what they carry: ")[2])
    assert (program, arguments[-1]) == ("dubio-train", f"[{refused.risk_due:g},0.5]")
    main(arguments)
    again = load(path, strategy="chain")
    assert [(each.risk, each.refusal) for each in again.promises.acceptances] == [(refused.risk_due, None), (0.5, None)]
    assert answer_promises.caveats(again, digits, path) == []


def test_classes_with_too_few_rows_for_the_coverage_are_named(predictor: Predictor, digits: Digits):
    sets = predictor.promises.label_sets
    by_class = replace(sets, by="class", quantiles_G=torch.full((10,), 0.5, dtype=torch.float64))
    by_class.quantiles_G[3] = torch.finfo(torch.float64).max
    held = replace(predictor, promises=replace(predictor.promises, label_sets=by_class))
    told = answer_promises.caveats(held, digits, Path("model.ckpt"))
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
    assert "accepted, risk 0.05" in told
    assert "label sets (LAC) 95.0% contain the true class" in told


def test_no_flagged_row_is_accepted_and_every_set_holds_the_mc_label(predictor: Predictor, digits: Digits):
    x = torch.cat([digits.raw("test")[0], 16 - digits.raw("test")[0][:50]])
    for samples in (None, "auto"):
        answers = predictor.predict(x, samples=samples)
        for decision in answers.decisions:
            assert decision.accepted is None or not (decision.accepted & answers.flagged).any()
            assert decision.accepted is None or not (decision.accepted & (answers.label != answers.mc_label)).any()
        assert answers.label_set[np.arange(len(x)), answers.mc_label].all()
