"""Figures of probabilities, against their definitions, scikit-learn, and torchmetrics where that is right."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from dubio.training.quality import BINS, Quality, intervals, reliability, risk_coverage

FIGURES = {"accuracy", "nll", "brier", "ece", "adaptive_ece", "aurc"}


def _drawn(rows: int = 400, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(rows, classes, generator=generator).double().mul(2).softmax(-1)
    return probs, torch.multinomial(probs.sqrt(), 1, generator=generator).flatten()


def _sure(confidences: list[float], right: list[bool]) -> tuple[Tensor, Tensor]:
    """Two classes, the first of them the more probable."""
    first = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1), torch.tensor([0 if each else 1 for each in right])


def _ece(probs: Tensor, labels: Tensor, bins: int) -> float:
    """Naeini 2015, with the bins of Guo 2017: ((m - 1) / M, m / M]."""
    confidence, right = probs.max(1).values, probs.argmax(1) == labels
    total = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gap = right[inside].double().mean() - confidence[inside].double().mean()
            total += float(inside.double().mean() * abs(gap))
    return total


def test_likelihood_and_brier_score_are_scikit_learns():
    probs, labels = _drawn()
    quality = Quality.of(probs, labels)
    assert quality.accuracy == pytest.approx(float((probs.argmax(1) == labels).float().mean()))
    assert quality.nll == pytest.approx(log_loss(labels, probs), rel=1e-5)
    assert quality.brier == pytest.approx(brier_score_loss(labels, probs, scale_by_half=False), rel=1e-5)


def test_the_calibration_error_is_that_of_its_definition_and_of_torchmetrics_off_the_edges():
    probs, labels = _drawn()
    quality = Quality.of(probs, labels)
    assert quality.ece == pytest.approx(_ece(probs, labels, BINS), abs=1e-6)
    theirs = multiclass_calibration_error(probs, labels, num_classes=5, n_bins=BINS, norm="l1")
    assert quality.ece == pytest.approx(float(theirs), abs=1e-6)


def test_bins_are_closed_on_the_right_where_torchmetrics_has_a_bin_of_its_own_for_1():
    # Half of the rows that are sure are wrong, and those that are nearly sure are right: in (14/15, 1] confidences are
    # .975 on average and three of four rows are right.
    probs, labels = _sure([1.0, 1.0, 0.95, 0.95], [True, False, True, True])
    assert Quality.of(probs, labels).ece == pytest.approx(0.975 - 0.75)
    theirs = multiclass_calibration_error(probs, labels, num_classes=2, n_bins=BINS, norm="l1")
    assert float(theirs) == pytest.approx(0.5 * (1 - 0.5) + 0.5 * (1 - 0.95))  # 1 is a bin alone: not that of the paper


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_confidence_on_an_edge_is_in_the_bin_below(dtype: torch.dtype):
    # .6 is the edge 9/15: with what is just below it the gaps cancel, with what is just above they would not.
    probs, labels = _sure([0.6, 0.55], [True, False])
    bins = reliability(probs.to(dtype), labels)
    assert bins.rows_b.tolist() == [2.0 if index == 8 else 0.0 for index in range(BINS)]
    assert bins.error == pytest.approx(abs(0.5 - 0.575))


def test_equal_mass_bins_are_those_of_sorted_rows():
    probs, labels = _drawn(rows=450)
    confidence, right = probs.max(1).values.double().numpy(), (probs.argmax(1) == labels).numpy()
    order = np.argsort(confidence)
    parts = np.split(order, BINS)  # 30 rows each
    due = sum(abs(right[part].mean() - confidence[part].mean()) for part in parts) / BINS
    assert Quality.of(probs, labels).adaptive_ece == pytest.approx(due)


def test_equal_confidences_share_a_bin_and_the_order_of_rows_does_not_matter():
    probs, labels = _sure([0.9] * 20 + [0.6] * 20, [True] * 15 + [False] * 5 + [True, False] * 10)
    for order in (torch.arange(40), torch.arange(40).flip(0), torch.randperm(40)):
        quality = Quality.of(probs[order], labels[order])
        assert quality.adaptive_ece == pytest.approx(0.5 * 0.15 + 0.5 * 0.1)
        assert quality.aurc == pytest.approx(Quality.of(probs, labels).aurc)


def test_the_bins_of_a_diagram_add_up_to_the_error():
    probs, labels = _drawn()
    bins = reliability(probs, labels)
    assert bins.error == pytest.approx(Quality.of(probs, labels).ece)
    assert bins.rows_b.sum() == len(labels)


def test_the_area_under_the_risk_coverage_curve_is_the_mean_risk():
    # In the order of confidence: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 2/4.
    probs, labels = _sure([0.8, 0.9, 0.7, 0.6], [False, True, True, False])
    assert Quality.of(probs, labels).aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert risk_coverage(probs.max(1).values.numpy(), np.array([False, True, True, False])).tolist() == pytest.approx(
        [0, 1 / 2, 1 / 3, 1 / 2]
    )


def test_ties_count_as_the_mean_over_their_orders():
    confidence, right = np.array([0.9, 0.7, 0.7, 0.7, 0.6]), [True, False, True, True, False]
    due = []
    for middle in permutations(right[1:4]):
        wrong = ~np.array([right[0], *middle, right[4]])
        due.append((wrong.cumsum() / np.arange(1, 6)).mean())
    probs, labels = _sure(confidence.tolist(), right)
    assert Quality.of(probs, labels).aurc == pytest.approx(np.mean(due))
    assert risk_coverage(confidence, np.array(right)).mean() == pytest.approx(np.mean(due))


def test_a_perfect_answer_costs_nothing():
    quality = Quality.of(torch.eye(3), torch.arange(3))
    assert (quality.accuracy, quality.nll, quality.brier, quality.ece, quality.aurc) == (1.0, 0.0, 0.0, 0.0, 0.0)


def test_a_probability_of_zero_costs_much_but_not_infinitely():
    quality = Quality.of(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert 80 < quality.nll < 90
    assert (quality.ece, quality.brier, quality.aurc) == (1.0, 2.0, 1.0)


def test_a_mean_that_rounding_puts_above_1_is_in_the_last_bin():
    quality = Quality.of(torch.tensor([[1.0000001, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert (quality.accuracy, quality.nll, quality.ece) == (1.0, 0.0, 0.0)


def test_rows_drawn_anew_are_measured_as_if_they_stood_there():
    """What the bootstrap computes from counts is what the figures of the repeated rows are."""
    probs, labels = _drawn(rows=60)
    low_high = intervals(probs, labels, resamples=50, seed=3)
    counts = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=50)
    figures = [
        Quality.of(probs[rows], labels[rows])
        for rows in (torch.from_numpy(np.repeat(range(60), each)) for each in counts)
    ]
    here = Quality.of(probs, labels)
    for name in ("nll", "brier", "ece", "aurc"):
        low, high = np.quantile([getattr(each, name) for each in figures], [0.025, 0.975])
        value = getattr(here, name)
        assert low_high[name] == pytest.approx((max(0, 2 * value - high), max(0, 2 * value - low)))


def test_an_interval_has_every_figure_and_the_same_one_each_time():
    probs, labels = _drawn()
    found = intervals(probs, labels, resamples=100)
    assert found.keys() == FIGURES
    assert found == intervals(probs, labels, resamples=100)
    assert found["accuracy"] == pytest.approx(
        tuple(binomtest(int((probs.argmax(1) == labels).sum()), 400).proportion_ci())
    )
    assert all(0 <= low <= high for low, high in found.values())


def test_intervals_hold_the_true_figure_nearly_as_often_as_they_say():
    """Confidence .8 for all rows, of which 70% are right: the calibration error is .1, the NLL known."""
    generator = np.random.default_rng(0)
    truth = {"ece": 0.1, "nll": -0.7 * np.log(0.8) - 0.3 * np.log(0.2), "accuracy": 0.7, "aurc": 0.3}
    held = dict.fromkeys(truth, 0)
    for _ in range(100):
        right = generator.random(300) < 0.7
        found = intervals(*_sure([0.8] * 300, right.tolist()), resamples=200)
        for name, value in truth.items():
            held[name] += found[name][0] <= value <= found[name][1]
    for name, count in held.items():
        assert binomtest(count, 100, 0.9, alternative="less").pvalue > 0.01, (name, count)


def test_the_interval_of_a_calibrated_answers_error_reaches_down_to_0():
    """The plug-in error of few rows is far from 0, where percentiles of resampled rows would leave it."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(500, 5, generator=generator).mul(2).softmax(-1)
    reached = 0
    for _ in range(20):
        labels = torch.multinomial(probs, 1, generator=generator).flatten()
        assert Quality.of(probs, labels).ece > 0.01
        reached += intervals(probs, labels, resamples=200)["ece"][0] < 0.01
    assert reached >= 12  # and never with percentiles
