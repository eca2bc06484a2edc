"""Scores: higher = more out-of-distribution, always."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from uncertainty.detection import scores
from uncertainty.detection.measures import summarise

GENERATOR = torch.Generator().manual_seed(0)
LOGITS_KBC = 4 * torch.randn(5, 30, 4, generator=GENERATOR, dtype=torch.float64)


def test_max_softmax_is_scipys_turned_round():
    due = 1 - softmax(LOGITS_KBC[0].numpy(), axis=-1).max(-1)
    np.testing.assert_allclose(scores.max_softmax(LOGITS_KBC[0]), due, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_energy_is_scipys(temperature):
    due = -temperature * logsumexp(LOGITS_KBC[0].numpy() / temperature, axis=-1)
    np.testing.assert_allclose(scores.energy(LOGITS_KBC[0], temperature), due, rtol=1e-10)


def test_energy_of_large_logits_does_not_overflow():
    assert scores.energy(torch.tensor([[1e4, 0.0], [-1e4, -1e4]])).tolist() == pytest.approx([-1e4, 1e4], rel=1e-4)


def test_entropies_are_scipys():
    probs_KBC = LOGITS_KBC.softmax(-1)
    total = entropy(probs_KBC.mean(0).numpy(), axis=-1)
    aleatoric = entropy(probs_KBC.numpy(), axis=-1).mean(0)
    np.testing.assert_allclose(scores.predictive_entropy(summarise(probs_KBC)), total, rtol=1e-10)
    np.testing.assert_allclose(scores.mutual_information(summarise(probs_KBC)), total - aleatoric, rtol=1e-8)


def test_every_score_points_the_same_way():
    sure = torch.tensor([[[9.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]])
    unsure = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    for score in (scores.max_softmax, scores.energy):
        assert score(unsure[0]) > score(sure[0])
    for score in (scores.mutual_information, scores.predictive_entropy):
        assert score(summarise(unsure.softmax(-1))) > score(summarise(sure.softmax(-1)))
