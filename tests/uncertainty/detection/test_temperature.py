"""Temperature scaling against scipy's optimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm
from torch import Tensor

from dubio.uncertainty.detection import temperature
from dubio.uncertainty.errors import UncertaintyError


def _data(members: int, true_temperature: float, rows: int = 800) -> tuple[Tensor, Tensor]:
    """Labels drawn from softmax(z), logits handed over as T z: the best temperature is about T."""
    generator = torch.Generator().manual_seed(members)
    true_BC = 2 * torch.randn(rows, 4, generator=generator)
    labels_B = torch.multinomial(true_BC.softmax(-1), 1, generator=generator)[:, 0]
    noise_KBC = 0.5 * torch.randn(members, rows, 4, generator=generator)
    return true_temperature * (true_BC + (noise_KBC if members > 1 else 0 * noise_KBC)), labels_B


def _nll(logits_KBC: Tensor, labels_B: Tensor, t: float) -> float:
    log_probs = log_softmax(logits_KBC.double().numpy() / t, axis=-1)
    log_mean = logsumexp(log_probs, axis=0) - math.log(len(logits_KBC))
    rows = np.arange(len(log_mean))
    told = _with_doubt(log_mean, labels_B, 0.5 / (len(rows) + 1))
    return -float(told.mean() + norm.logpdf(math.log(t), scale=0.5) / len(rows))


def _with_doubt(log_mean: np.ndarray, labels_B: Tensor, wrong: float) -> np.ndarray:
    """Log-likelihoods, each row counting as wrong for a share."""
    is_true = np.arange(log_mean.shape[1]) == labels_B.numpy()[:, None]
    doubt = logsumexp(np.where(is_true, -np.inf, log_mean), axis=1).clip(math.log(2.0**-149))
    return (1 - wrong) * log_mean[is_true] + wrong * doubt


@pytest.mark.parametrize("members", [1, 2, 16])
@pytest.mark.parametrize("true_temperature", [0.1, 0.5, 1.0, 3.0, 15.0])
def test_the_temperature_is_scipys(members, true_temperature):
    logits_KBC, labels_B = _data(members, true_temperature)
    best = minimize_scalar(
        lambda log_t: _nll(logits_KBC, labels_B, math.exp(log_t)),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    fitted = temperature.fit(logits_KBC, labels_B)
    assert fitted == pytest.approx(math.exp(best.x), rel=2e-3)
    assert _nll(logits_KBC, labels_B, fitted) <= best.fun + 1e-7


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(true_temperature):
    logits_KBC, labels_B = _data(1, true_temperature, rows=20_000)
    assert temperature.fit(logits_KBC, labels_B) == pytest.approx(true_temperature, rel=0.05)


@pytest.mark.parametrize("rows", [20, 2000])
def test_rows_that_are_all_right_leave_some_doubt(rows):
    """As much as half an error among them would, and that T is expected near 1."""
    labels_B = torch.arange(rows) % 4
    for size in (3.0, 30.0):
        logits_KBC = size * torch.nn.functional.one_hot(labels_B, 4).float()[None]
        fitted = temperature.fit(logits_KBC, labels_B)
        doubt = 1 - float((logits_KBC[0] / fitted).softmax(-1).amax(-1).mean())
        low, high = sorted((0.5 / (rows + 1), 1 - float(logits_KBC[0].softmax(-1).amax(-1).mean())))
        assert low * 0.99 < doubt < high * 1.01


def test_of_a_network_that_is_calibrated_few_rows_make_no_worse_a_one():
    """Temperatures that are fitted to 40 rows of a calibrated network: the mean loss in likelihood is next to none."""
    generator, lost = torch.Generator().manual_seed(0), []
    for _ in range(60):
        logits_BC = 4 * torch.randn(2040, 4, generator=generator)
        labels_B = torch.multinomial(logits_BC.softmax(-1), 1, generator=generator)[:, 0]
        fitted = temperature.fit(logits_BC[None, :40], labels_B[:40])
        one, other = (torch.nn.functional.cross_entropy(logits_BC[40:] / each, labels_B[40:]) for each in (1.0, fitted))
        lost.append(float(other - one))
    assert np.mean(lost) < 0.01


def test_labels_that_are_always_wrong_end_at_the_bound():
    logits_KBC = 3 * torch.nn.functional.one_hot(torch.arange(400) % 4, 4).float()[None]
    assert temperature.fit(logits_KBC, (torch.arange(400) + 1) % 4) == pytest.approx(20.0, rel=1e-3)


def test_no_rows_are_refused():
    with pytest.raises(UncertaintyError, match="at least one labelled row"):
        temperature.fit(torch.zeros(1, 0, 3), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("value", [-1e5, -1e6, -1e30, -math.inf])
@pytest.mark.parametrize("members", [1, 16])
def test_masked_classes_change_nothing(members, value):
    logits_KBC, labels_B = _data(members, 2.0)
    masked_KBC = torch.nn.functional.pad(logits_KBC, (0, 2), value=value)
    assert temperature.fit(masked_KBC, labels_B) == pytest.approx(temperature.fit(logits_KBC, labels_B), rel=1e-6)


@pytest.mark.parametrize("value", [-1e6, -math.inf])
def test_classes_that_are_masked_in_some_rows_change_nothing_there(value):
    """Half of the rows have two classes more: they are fitted as if there were none, by scipy."""
    logits_KBC, labels_B = _data(4, 2.0)
    padded_KBC = torch.cat([logits_KBC, logits_KBC[..., :2] - 1], dim=-1)
    padded_KBC[:, ::2, 4:] = value

    def loss(log_t: float) -> float:
        total = 0.0
        for rows, width in ((slice(0, None, 2), 4), (slice(1, None, 2), 6)):
            log_mean = logsumexp(
                log_softmax(padded_KBC[:, rows, :width].double().numpy() / math.exp(log_t), axis=-1), axis=0
            ) - math.log(4)
            total -= float(_with_doubt(log_mean, labels_B[rows], 0.5 / (len(labels_B) + 1)).sum())
        return (total + 2 * log_t**2) / len(labels_B)

    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-7})
    assert temperature.fit(padded_KBC, labels_B) == pytest.approx(math.exp(best.x), rel=2e-3)


@pytest.mark.parametrize("value", [-1e6, -1e30, -math.inf])
def test_rows_whose_true_class_is_masked_count_for_nothing(value):
    logits_KBC, labels_B = _data(4, 2.0)
    known = temperature.fit(logits_KBC[:, 100:], labels_B[100:])
    logits_KBC[:, torch.arange(100), labels_B[:100]] = value
    assert temperature.fit(logits_KBC, labels_B) == known
    with pytest.raises(UncertaintyError, match="those of all 100 rows have none"):
        temperature.fit(logits_KBC[:, :100], labels_B[:100])


def test_certainty_beyond_measure_that_is_wrong_is_no_mask():
    """Every class is the true one of some rows, and no temperature is high enough for the missed ones: none is."""
    labels_B = torch.arange(400) % 4
    said_B = torch.where(torch.arange(400) < 300, labels_B, (labels_B + 1) % 4)
    logits_KBC = 1e5 * torch.nn.functional.one_hot(said_B, 4).float()[None]
    assert temperature.fit(logits_KBC, labels_B) == pytest.approx(1.0, rel=1e-3)
