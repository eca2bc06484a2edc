"""The density of features against scipy's Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.density import FeatureDensity
from dubio.uncertainty.detection.serialization import dump, load
from dubio.uncertainty.errors import UncertaintyError

GENERATOR = torch.Generator().manual_seed(0)
LABELS_N = torch.randint(3, (400,), generator=GENERATOR)
MIXING = torch.randn(3, 5, 5, generator=GENERATOR)
TRAIN_NF = torch.einsum("nf,nfg->ng", torch.randn(400, 5, generator=GENERATOR), MIXING[LABELS_N]) + LABELS_N[:, None]
ASKED_BF = 3 * torch.randn(40, 5, generator=GENERATOR)


def _pass(rows: Tensor) -> DeterministicPass:
    return DeterministicPass(torch.zeros(len(rows), 1), torch.zeros(len(rows), 3), rows)


def _score(density: FeatureDensity, rows: Tensor) -> Tensor:
    return density.score(Outputs(_pass(rows), torch.zeros(0, len(rows), 3)))


@pytest.mark.parametrize("labels", [[0, 1, 2], [7, 40, 1000]])
def test_the_density_is_that_of_scipys_gaussians(labels):
    rows = TRAIN_NF.double().numpy()
    logs = []
    for label in range(3):
        mine = rows[LABELS_N.numpy() == label]
        gaussian = multivariate_normal(mine.mean(0), np.cov(mine.T, bias=True))
        logs.append(np.log(len(mine) / len(rows)) + gaussian.logpdf(ASKED_BF.double().numpy()))
    fitted = FeatureDensity.fit(_pass(TRAIN_NF), torch.tensor(labels)[LABELS_N], shrinkage=1e-9)
    np.testing.assert_allclose(_score(fitted, ASKED_BF), -logsumexp(logs, axis=0), rtol=1e-4)


def test_a_class_of_fewer_rows_than_features_leans_on_the_shrinkage():
    few = FeatureDensity.fit(_pass(TRAIN_NF[:6]), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert bool(torch.isfinite(_score(few, ASKED_BF)).all())
    assert _score(few, 100 * ASKED_BF).min() > _score(few, TRAIN_NF[:6]).max()


def test_too_many_numbers_are_refused():
    wide = torch.randn(600, 1000, generator=GENERATOR)
    with pytest.raises(UncertaintyError, match="300 classes of 1000 features have 300000000; leave it out"):
        FeatureDensity.fit(_pass(wide), torch.arange(600) % 300)


@pytest.mark.parametrize("name", ["means_CF", "whitenings_CFF", "offsets_C"])
def test_parts_that_do_not_belong_together_are_refused(name):
    state = dump(FeatureDensity.fit(_pass(TRAIN_NF), LABELS_N))
    with pytest.raises(UncertaintyError, match="whitening matrices"):
        load(FeatureDensity, {**state, name: state[name][:-1]}, "where")
