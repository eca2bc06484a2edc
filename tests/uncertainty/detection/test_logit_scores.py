"""Scores of the logits against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.logit_scores import Energy, GeneralizedEntropy, MaxLogit, MaxSoftmax

LOGITS_BC = 4 * torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SCORES = (MaxSoftmax, MaxLogit, Energy, GeneralizedEntropy)


def _score(kind: type, logits_BC: Tensor) -> Tensor:
    seen = DeterministicPass(torch.zeros(len(logits_BC), 1), logits_BC, None)
    return kind.fit(seen, torch.zeros(0)).score(Outputs(seen, logits_BC.softmax(-1).unsqueeze(0)))


def test_max_softmax_is_scipys_turned_round():
    due = 1 - softmax(LOGITS_BC.numpy(), axis=-1).max(-1)
    np.testing.assert_allclose(_score(MaxSoftmax, LOGITS_BC), due, rtol=1e-10, atol=1e-14)


def test_max_logit_is_numpys_turned_round():
    np.testing.assert_array_equal(_score(MaxLogit, LOGITS_BC), -LOGITS_BC.numpy().max(-1))


def test_energy_is_scipys():
    np.testing.assert_allclose(_score(Energy, LOGITS_BC), -logsumexp(LOGITS_BC.numpy(), axis=-1), rtol=1e-10)


def test_energy_of_large_logits_does_not_overflow():
    logits_BC = torch.tensor([[1e4, 0.0], [-1e4, -1e4]])
    assert _score(Energy, logits_BC).tolist() == pytest.approx([-1e4, 1e4], rel=1e-4)


@pytest.mark.parametrize("classes", [2, 4, 100, 300])
def test_gen_is_the_papers_sum_over_the_100_most_probable_classes(classes):
    logits_BC = 3 * torch.randn(20, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = np.sort(softmax(logits_BC.numpy(), axis=-1), axis=-1)[:, ::-1][:, :100]
    due = (p**0.1 * (1 - p) ** 0.1).sum(-1)
    np.testing.assert_allclose(_score(GeneralizedEntropy, logits_BC), due, rtol=1e-8)


def test_gen_still_tells_very_sure_rows_apart():
    sure = torch.tensor([[40.0, 0.0, 0.0], [50.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    values = _score(GeneralizedEntropy, sure)
    # p (1 - p) of each class is e^-t up to a factor of 2, and 2 e^-t of the sure one.
    due = [2 * (np.exp(-t)) ** 0.1 + (2 * np.exp(-t)) ** 0.1 for t in (40, 50, 60)]
    assert values.tolist() == pytest.approx(due, rel=1e-6)


@pytest.mark.parametrize("kind", SCORES)
def test_unsure_rows_score_higher(kind):
    assert _score(kind, torch.tensor([[1.0, 1.0, 0.0]])) > _score(kind, torch.tensor([[9.0, 0.0, 0.0]]))
