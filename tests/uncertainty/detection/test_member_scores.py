"""Scores of the members' answers against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy, mode
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.member_scores import (
    ExpectedEntropy,
    LogitDisagreement,
    MemberScore,
    MutualInformation,
    PredictedStd,
    PredictiveEntropy,
    VariationRatio,
)

LOGITS_KBC = 4 * torch.randn(5, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PROBS = LOGITS_KBC.softmax(-1).numpy()
SCORES = (MutualInformation, PredictiveEntropy, ExpectedEntropy, PredictedStd, VariationRatio, LogitDisagreement)


def _score(kind: type[MemberScore], probs_KBC: Tensor) -> Tensor:
    seen = DeterministicPass(torch.zeros(probs_KBC.shape[1], 1), torch.zeros(probs_KBC.shape[1:]), None)
    return kind.fit(seen, torch.zeros(0)).score(Outputs(seen, probs_KBC))


def test_entropies_are_scipys():
    probs_KBC = LOGITS_KBC.softmax(-1)
    total, expected = entropy(PROBS.mean(0), axis=-1), entropy(PROBS, axis=-1).mean(0)
    np.testing.assert_allclose(_score(PredictiveEntropy, probs_KBC), total, rtol=1e-10)
    np.testing.assert_allclose(_score(ExpectedEntropy, probs_KBC), expected, rtol=1e-10)
    np.testing.assert_allclose(_score(MutualInformation, probs_KBC), total - expected, rtol=1e-8)


def test_the_std_is_that_of_the_class_with_the_largest_mean():
    due = [PROBS[:, row, PROBS[:, row].mean(0).argmax()].std() for row in range(30)]
    np.testing.assert_allclose(_score(PredictedStd, LOGITS_KBC.softmax(-1)), due, rtol=1e-10)


def test_the_variation_ratio_is_what_scipys_mode_leaves():
    votes = mode(PROBS.argmax(-1), axis=0).count
    np.testing.assert_allclose(_score(VariationRatio, LOGITS_KBC.softmax(-1)), 1 - votes / 5, rtol=1e-12)


def test_logit_disagreement_is_what_the_effective_number_of_members_leaves():
    weights = LOGITS_KBC.numpy().max(-1) - LOGITS_KBC.numpy().min(-1)
    weights = weights / weights.sum(0)
    due = 1 - 1 / (weights**2).sum(0) / 5
    np.testing.assert_allclose(_score(LogitDisagreement, LOGITS_KBC.softmax(-1)), due, rtol=1e-7, atol=1e-12)


def test_logit_disagreement_is_that_of_one_member_if_the_others_say_nothing():
    flat, sure = torch.full((1, 1, 3), 1 / 3), torch.tensor([[[0.98, 0.01, 0.01]]])
    assert _score(LogitDisagreement, torch.cat([sure, flat, flat, flat])).tolist() == pytest.approx([3 / 4])
    assert _score(LogitDisagreement, flat.expand(4, 1, 3)).tolist() == [0]
    assert _score(LogitDisagreement, sure.expand(4, 1, 3)).tolist() == pytest.approx([0], abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_logit_disagreement_does_not_depend_on_the_temperature(temperature):
    torch.testing.assert_close(
        _score(LogitDisagreement, (LOGITS_KBC / temperature).softmax(-1)),
        _score(LogitDisagreement, LOGITS_KBC.softmax(-1)),
        rtol=1e-8,
        atol=1e-10,
    )


def test_probabilities_of_zero_give_numbers():
    probs_KBC = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    assert all(bool(torch.isfinite(_score(kind, probs_KBC)).all()) for kind in SCORES)


@pytest.mark.parametrize("kind", SCORES)
def test_members_that_disagree_score_higher(kind):
    sure = torch.tensor([[[0.98, 0.01, 0.01]], [[0.98, 0.01, 0.01]], [[0.98, 0.01, 0.01]]])
    unsure = torch.tensor([[[0.6, 0.2, 0.2]], [[0.1, 0.8, 0.1]], [[0.05, 0.15, 0.8]]])
    assert _score(kind, unsure) > _score(kind, sure)
