from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import f1_score, recall_score

from dubio.models import Predictor, load
from dubio.training import Digits, evaluation
from dubio.training.class_figures import ClassFigures
from dubio.training.evaluation import DETERMINISTIC, MC
from dubio.training.quality import Quality, intervals


@pytest.fixture(scope="module")
def predictor(runs: Path) -> Predictor:
    return load(runs / "digits_mlp" / "model.ckpt")


def test_the_figures_are_those_of_the_test_split(predictor: Predictor, digits: Digits):
    measured = evaluation.evaluate(predictor, digits)
    x, labels = digits.raw("test")
    answer, rows = predictor.predict(x), np.arange(len(labels))
    assert measured.rows == len(labels)
    assert measured.deterministic.accuracy == pytest.approx((answer.label == labels.numpy()).mean())
    assert measured.mc.accuracy == pytest.approx((answer.mc_label == labels.numpy()).mean())
    assert measured.deterministic.nll == pytest.approx(-np.log(answer.probabilities[rows, labels]).mean(), rel=1e-4)
    assert measured.mc.nll == pytest.approx(-np.log(answer.mc_mean[rows, labels]).mean(), rel=1e-4)
    assert abs(measured.flagged - answer.flagged.sum()) <= 1
    by_class = measured.by_class
    assert by_class.macro_f1 == pytest.approx(f1_score(labels, answer.label, average="macro"))
    assert by_class.recall.tolist() == pytest.approx(recall_score(labels, answer.label, average=None))
    assert (by_class.rows_C.sum(), by_class.flagged_C.sum()) == (measured.rows, measured.flagged)
    most = np.bincount(digits.splits["train"].labels).argmax()
    assert measured.baseline == (digits.classes[most], pytest.approx(np.mean(labels.numpy() == most)))


def test_the_table_tells_figures_and_promise(predictor: Predictor):
    deterministic = Quality(accuracy=0.975, nll=0.1, brier=0.05, ece=0.0123, adaptive_ece=0.01, aurc=0.002)
    mc = Quality(accuracy=0.97, nll=0.09, brier=0.06, ece=0.0234, adaptive_ece=0.02, aurc=0.003)
    by_class = ClassFigures(*torch.tensor([[150, 50], [160, 40], [150, 40], [5, 2]]))
    measured = evaluation.Evaluation(
        200,
        deterministic,
        by_class,
        ("[even]", 0.75),
        mc,
        7,
        out_of_distribution={"noise": (9, 10)},
        intervals={MC: {"ece": (0.01, 0.03)}},
    )
    written = io.StringIO()
    Console(width=200, file=written).print(evaluation.table(measured, Path("runs/digits/model.ckpt"), predictor))
    text = written.getvalue()
    for said in (
        "97.50% deterministic, 97.00% MC dropout",
        "at most 5.0% false alarms, with confidence 95%",
        f"p-value at or below {predictor.detector.calibration.level:.4f}",
        f"{len(predictor.detector.calibration.scores_N)} calibration rows",
        "over all classes together",
        "75.00% accuracy for always saying '[even]'",
        "0.928 deterministic, each class counting alike",
        "7 of 200 test rows flagged (3.5%, 95% interval 1.4% to 7.1%): consistent with at most 5.0%",
        "0.1000 deterministic, 0.0900 MC dropout (nats)",
        "0.0123 deterministic, 0.0234 (0.0100 to 0.0300) MC dropout",
        "9 of 10 noise flagged (90.0%)",
        ", ".join(f"dropout {site.p:g}" for site in predictor.committee.sites),
        "runs/digits/model.ckpt",
    ):
        assert said in text


def test_of_a_network_that_is_not_calibrated_no_promise_is_told(network: torch.nn.Module, digits: Digits):
    measured = evaluation.evaluate_uncalibrated(network, digits)
    x, labels = digits.raw("test")
    mean, std = torch.tensor(digits.input.mean), torch.tensor(digits.input.std)
    with torch.no_grad():
        probs = network.eval()((x - mean) / std).softmax(-1)
    assert (measured.rows, measured.mc, measured.flagged) == (len(labels), None, None)
    assert measured.deterministic.nll == pytest.approx(-np.log(probs.numpy()[range(len(x)), labels]).mean(), rel=1e-4)
    assert measured.by_class.macro_f1 == pytest.approx(f1_score(labels, probs.argmax(1), average="macro"))
    written = io.StringIO()
    Console(width=200, file=written).print(evaluation.table(measured, Path("best.ckpt")))
    assert f"{measured.deterministic.accuracy:.2%} deterministic " in written.getvalue()
    assert "none: this checkpoint is not calibrated (`dubio-train calibrate`)" in written.getvalue()
    assert "MC" not in written.getvalue()


def test_both_answers_are_measured_before_and_after_the_temperature(predictor: Predictor, digits: Digits):
    measured = evaluation.evaluate(predictor, digits, before=True)
    x, labels = digits.raw("test")
    answer, temperature = predictor.predict(x), predictor.temperature
    logits_BC, logits_KBC = predictor.deterministic(x).logits_BC, predictor.member_logits(x)
    due = {DETERMINISTIC: logits_BC.softmax(-1), MC: logits_KBC.softmax(-1).mean(0)}
    after = {
        DETERMINISTIC: (logits_BC / temperature.deterministic).softmax(-1),
        MC: (logits_KBC / temperature.mc).softmax(-1).mean(0),
    }
    for name in (DETERMINISTIC, MC):
        told = measured.deterministic if name == DETERMINISTIC else measured.mc
        # Strategies may round differently from batch to batch, and then a row may change its bin.
        for figure in ("accuracy", "nll", "brier", "aurc"):
            assert getattr(measured.before[name], figure) == pytest.approx(
                getattr(Quality.of(due[name], labels), figure), rel=1e-3, abs=1e-6
            )
            assert getattr(told, figure) == pytest.approx(
                getattr(Quality.of(after[name], labels), figure), rel=1e-3, abs=1e-6
            )
        assert measured.intervals[name].keys() == vars(told).keys()
        assert measured.intervals[name]["accuracy"] == intervals(after[name], labels, resamples=2)["accuracy"]
    assert measured.deterministic.nll == pytest.approx(
        float(Quality.of(torch.from_numpy(answer.probabilities), labels).nll), rel=1e-4
    )
    written = io.StringIO()
    Console(width=80, file=written).print(evaluation.quality_table(measured))
    # On a terminal of usual width nothing is cut.
    rows = [line.split("│")[1:-1] for line in written.getvalue().splitlines() if line.startswith("│")]
    lines = {label.strip(): [cell.strip() for cell in cells] for label, *cells in rows}
    told = [measured.before[DETERMINISTIC], measured.deterministic, measured.before[MC], measured.mc]
    for label, figure in (
        ("NLL (nats)", "nll"),
        ("Brier", "brier"),
        ("adaptive ECE", "adaptive_ece"),
        ("AURC", "aurc"),
    ):
        assert lines[label] == [f"{getattr(each, figure):.4f}" for each in told]
    assert lines["accuracy"] == [f"{each.accuracy:.2%}" for each in told]
    for end, label in enumerate(("ECE, 95% low", "ECE, 95% high")):
        ends = [f"{measured.intervals[name]['ece'][end]:.4f}" for name in (DETERMINISTIC, MC)]
        assert lines[label] == ["", ends[0], "", ends[1]]


def test_the_members_are_asked_once(predictor: Predictor, digits: Digits, monkeypatch: pytest.MonkeyPatch):
    asked, committee = [], type(predictor.committee)
    call = committee.__call__
    monkeypatch.setattr(committee, "__call__", lambda self, x, *more: asked.append(len(x)) or call(self, x, *more))
    monkeypatch.setattr(digits, "out_of_distribution", dict)
    evaluation.evaluate(predictor, digits, before=True)
    assert sum(asked) == len(digits.raw("test")[1])
