"""Temperature scaling against scipy's optimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
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
    n, classes = log_mean.shape
    targets = np.full((n, classes), 1 / (n + 2) / (classes - 1))
    targets[np.arange(n), labels_B.numpy()] = (n + 1) / (n + 2)
    return -float(np.mean((targets * log_mean).sum(-1)))


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


@pytest.mark.parametrize("rows", [20, 400])
def test_rows_that_are_all_right_leave_as_much_doubt_as_their_number_does(rows):
    labels_B = torch.arange(rows) % 4
    logits_KBC = 30 * torch.nn.functional.one_hot(labels_B, 4).float()[None]
    sure_BC = (logits_KBC[0] / temperature.fit(logits_KBC, labels_B)).softmax(-1)
    assert float(sure_BC.amax(-1).mean()) == pytest.approx((rows + 1) / (rows + 2), abs=1e-4)


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
def test_classes_that_are_masked_in_some_rows_get_no_share_of_the_doubt_there(value):
    """Half of the rows have two classes more: they are fitted as if there were none, by scipy."""
    logits_KBC, labels_B = _data(4, 2.0)
    padded_KBC = torch.cat([logits_KBC, logits_KBC[..., :2] - 1], dim=-1)
    padded_KBC[:, ::2, 4:] = value

    def loss(log_t: float) -> float:
        n = len(labels_B)
        total = 0.0
        for rows, width in ((slice(0, None, 2), 4), (slice(1, None, 2), 6)):
            log_mean = logsumexp(
                log_softmax(padded_KBC[:, rows, :width].double().numpy() / math.exp(log_t), axis=-1), axis=0
            ) - math.log(4)
            targets = np.full(log_mean.shape, 1 / (n + 2) / (width - 1))
            targets[np.arange(len(log_mean)), labels_B[rows].numpy()] = (n + 1) / (n + 2)
            total -= float((targets * log_mean).sum())
        return total / n

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
    """Every class is the true one of some rows, and no temperature is high enough for those that are missed."""
    labels_B = torch.arange(400) % 4
    said_B = torch.where(torch.arange(400) < 300, labels_B, (labels_B + 1) % 4)
    logits_KBC = 1e5 * torch.nn.functional.one_hot(said_B, 4).float()[None]
    assert temperature.fit(logits_KBC, labels_B) == pytest.approx(20.0, rel=1e-3)
