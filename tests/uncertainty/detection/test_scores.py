"""Scores of the network's outputs against scipy, and all of them pointing the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.detector import SCORES
from dubio.uncertainty.detection.scores import UNCERTAIN, UNFAMILIAR

LOGITS_KBC = 4 * torch.randn(5, 30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _score(name: str, logits_KBC: Tensor) -> Tensor:
    seen = DeterministicPass(torch.zeros(logits_KBC.shape[1], 1), logits_KBC[0], None)
    return SCORES[name].fit(seen, torch.zeros(0)).score(Outputs(seen, logits_KBC.softmax(-1)))


def test_max_softmax_is_scipys_turned_round():
    due = 1 - softmax(LOGITS_KBC[0].numpy(), axis=-1).max(-1)
    np.testing.assert_allclose(_score("max_softmax", LOGITS_KBC), due, rtol=1e-10, atol=1e-14)


def test_energy_is_scipys():
    np.testing.assert_allclose(_score("energy", LOGITS_KBC), -logsumexp(LOGITS_KBC[0].numpy(), axis=-1), rtol=1e-10)


def test_energy_of_large_logits_does_not_overflow():
    logits_KBC = torch.tensor([[[1e4, 0.0], [-1e4, -1e4]]])
    assert _score("energy", logits_KBC).tolist() == pytest.approx([-1e4, 1e4], rel=1e-4)


def test_scores_that_ask_members_are_scipys_entropies():
    probs_KBC = LOGITS_KBC.softmax(-1).numpy()
    total, expected = entropy(probs_KBC.mean(0), axis=-1), entropy(probs_KBC, axis=-1).mean(0)
    np.testing.assert_allclose(_score("predictive_entropy", LOGITS_KBC), total, rtol=1e-10)
    np.testing.assert_allclose(_score("mutual_information", LOGITS_KBC), total - expected, rtol=1e-8)


def test_every_score_of_the_outputs_points_the_same_way():
    sure = torch.tensor([[[9.0, 0.0, 0.0]], [[9.0, 0.0, 0.0]]])
    unsure = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    for name in ("max_softmax", "energy", "mutual_information", "predictive_entropy"):
        assert _score(name, unsure) > _score(name, sure)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_asks_members_exactly_if_their_answers_change_it(trained, name):
    score = SCORES[name].fit(trained.train, trained.train_labels_N)
    select = trained.select
    with_others = Outputs(select.deterministic, select.probs_KBC.roll(1, 1))
    without_pass = Outputs(
        DeterministicPass(*(torch.zeros_like(tensor) for tensor in vars(select.deterministic).values())),
        select.probs_KBC,
    )
    assert torch.equal(score.score(select), score.score(with_others)) == (not score.asks_members)
    assert torch.equal(score.score(select), score.score(without_pass)) == score.asks_members


def test_distances_say_unfamiliar_and_everything_else_uncertain():
    unfamiliar = {"neighbours", "relative_mahalanobis", "input_mahalanobis"}
    assert {name: score.reason for name, score in SCORES.items()} == {
        name: UNFAMILIAR if name in unfamiliar else UNCERTAIN for name in SCORES
    }
