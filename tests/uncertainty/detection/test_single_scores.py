"""The p-values of each score alone against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dubio.uncertainty import Detector, DeterministicPass, Outputs
from dubio.uncertainty.detection.single_scores import SingleScores
from dubio.uncertainty.errors import UncertaintyError

NAMES = ("input_mahalanobis", "neighbours", "max_softmax")


def _outputs(rows: int, seed: int, shift: float = 0.0) -> Outputs:
    x = shift + torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return Outputs(DeterministicPass(inputs_BF=x, logits_BC=x, features_BF=x), x.softmax(-1)[None])


@pytest.fixture(scope="module")
def detector() -> Detector:
    train = _outputs(200, 0).deterministic
    return Detector.fit(train, train.logits_BC.argmax(-1), _outputs(150, 1), NAMES, k=5)


def test_p_values_count_the_calibration_rows_that_look_as_strange(detector: Detector):
    calibration, asked = _outputs(120, 2), _outputs(30, 3, shift=0.7)
    given = SingleScores.fit(detector, calibration).p_values(detector.rank(asked))
    for score, p_values in zip(detector.scores, given, strict=True):
        known, own = score.score(calibration).double().numpy(), score.score(asked).double().numpy()
        due = [(1 + np.sum(known >= value)) / 121 for value in own]
        np.testing.assert_allclose(p_values, due, atol=1.01 / 121)  # rounding may count one row more


def test_a_row_of_the_calibration_itself_counts_as_equal(detector: Detector):
    calibration = _outputs(120, 2)
    ranks_SB = detector.rank(calibration)
    given = SingleScores.fit(detector, calibration).p_values(ranks_SB)
    order = ranks_SB.argsort(dim=1, descending=True)
    assert bool((given.gather(1, order)[:, :-1] <= given.gather(1, order)[:, 1:]).all())
    assert bool((given.amin(1) >= 2 / 121).all())  # itself is among those that are as strange
    np.testing.assert_allclose(given.mean(1), 0.5 + 1 / 121, atol=0.01)


def test_what_is_beyond_all_or_no_number_is_most_extreme():
    single = SingleScores(torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    given = single.p_values(torch.tensor([[math.nan, math.inf, 0.3, 0.15, -math.inf]], dtype=torch.float64))
    assert given.tolist() == [[0.25, 0.25, 0.5, 0.75, 1.0]]


@pytest.mark.parametrize("ranks", [torch.tensor([[2.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]])])
def test_ranks_in_another_order_or_rounded_are_refused(ranks: torch.Tensor):
    with pytest.raises(UncertaintyError, match="ascending"):
        SingleScores(ranks)
