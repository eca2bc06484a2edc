from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from sklearn.metrics import f1_score, recall_score

from dubio.models import Predictor, load
from dubio.training import Digits, evaluation
from dubio.training.evaluation import Quality
from dubio.training.report import ClassFigures


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
    deterministic, mc = Quality(accuracy=0.975, nll=0.1, ece=0.0), Quality(accuracy=0.97, nll=0.09, ece=0.0)
    by_class = ClassFigures(*torch.tensor([[150, 50], [160, 40], [150, 40], [5, 2]]))
    measured = evaluation.Evaluation(
        200, deterministic, by_class, ("[even]", 0.75), mc, 7, out_of_distribution={"noise": (9, 10)}
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
        "9 of 10 noise flagged (90.0%)",
        "dropout 0.5, dropout 0.4, dropout 0.3",
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


def _ece(probs: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Naeini 2015 in numpy."""
    confidence, right = probs.max(1), probs.argmax(1) == labels
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


def test_figures_are_those_of_their_definitions():
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(400, 5, generator=generator).mul(2).softmax(-1)
    labels = torch.multinomial(probs.sqrt(), 1, generator=generator).flatten()
    quality = Quality.of(probs, labels)
    assert quality.accuracy == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    assert quality.nll == pytest.approx(float(F.nll_loss(probs.log(), labels)), rel=1e-5)
    assert quality.ece == pytest.approx(_ece(probs.numpy(), labels.numpy(), bins=15), abs=1e-5)


def test_a_probability_of_zero_costs_much_but_not_infinitely():
    quality = Quality.of(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert 80 < quality.nll < 90
    assert quality.ece == pytest.approx(1.0)


def test_a_mean_that_rounding_puts_above_1_is_no_logit():
    quality = Quality.of(torch.tensor([[1.0000001, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert (quality.accuracy, quality.nll, quality.ece) == (1.0, 0.0, 0.0)
