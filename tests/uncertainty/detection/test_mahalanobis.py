"""Mahalanobis distances against scipy's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor

from dubio.uncertainty.detection.mahalanobis import Mahalanobis, RelativeMahalanobis
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError

TINY = 1e-9


def _classes(rows: int = 600, width: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(3, (rows,), generator=generator)
    mixing = torch.randn(width, width, generator=generator)
    centres = 4 * torch.randn(3, width, generator=generator)
    return torch.randn(rows, width, generator=generator) @ mixing + centres[labels_N], labels_N


def test_distances_are_scikit_learns():
    train, _ = _classes()
    asked = 3 * _classes(seed=1)[0]
    due = EmpiricalCovariance().fit(train.double().numpy()).mahalanobis(asked.double().numpy())
    np.testing.assert_allclose(Mahalanobis.fit(train, TINY)(asked), due, rtol=1e-3)


def test_distances_are_scipys():
    train, _ = _classes()
    mean, inverse = train.double().mean(0).numpy(), np.linalg.inv(np.cov(train.double().numpy().T, bias=True))
    due = [mahalanobis(row, mean, inverse) ** 2 for row in train[:20].double().numpy()]
    np.testing.assert_allclose(Mahalanobis.fit(train, TINY)(train[:20]), due, rtol=1e-3)


def test_relative_distances_are_differences_of_scikit_learns():
    train, labels_N = _classes()
    asked = _classes(seed=1)[0].double().numpy()
    rows = train.double().numpy()
    means = np.stack([rows[labels_N == label].mean(0) for label in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(rows - means[labels_N])
    to_classes = np.stack([within.mahalanobis(asked - mean) for mean in means], axis=1).min(1)
    due = to_classes - EmpiricalCovariance().fit(rows).mahalanobis(asked)
    relative = RelativeMahalanobis.fit(train, labels_N, TINY)
    np.testing.assert_allclose(relative(torch.tensor(asked).float()), due, rtol=1e-3, atol=1e-2)


def test_labels_may_have_gaps():
    train, labels_N = _classes()
    spread = torch.tensor([7, 40, 1000])[labels_N]
    assert torch.equal(RelativeMahalanobis.fit(train, spread)(train), RelativeMahalanobis.fit(train, labels_N)(train))


def test_shrinkage_adds_its_share_of_the_mean_variance():
    rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 2 and 1/2
    score = Mahalanobis.fit(rows, shrinkage=0.1)(torch.eye(2))
    assert score.tolist() == pytest.approx([1 / 2.125, 1 / 0.625])


@pytest.mark.parametrize("shrinkage", [1e-3, 0.1])
def test_an_axis_that_never_varies_keeps_distances_finite(shrinkage):
    train, labels_N = _classes()
    train = torch.cat([train, torch.full((len(train), 2), 3.0)], dim=1)
    for score in (Mahalanobis.fit(train, shrinkage), RelativeMahalanobis.fit(train, labels_N, shrinkage)):
        assert bool(torch.isfinite(score(train)).all())
    off = train[:1].clone()
    off[0, -1] += 100.0
    assert Mahalanobis.fit(train, shrinkage)(off) > Mahalanobis.fit(train, shrinkage)(train).max()


def test_rows_that_are_all_alike_keep_distances_finite():
    train, labels_N = torch.ones(10, 4), torch.arange(10) % 2
    for score in (Mahalanobis.fit(train), RelativeMahalanobis.fit(train, labels_N)):
        assert bool(torch.isfinite(score(train)).all())


def test_farther_is_stranger():
    train, labels_N = _classes()
    direction = torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    far = torch.tensor([[10.0], [100.0], [1e4], [1e6]]) * direction
    for score in (Mahalanobis.fit(train), RelativeMahalanobis.fit(train, labels_N)):
        values = score(far)
        assert bool((values.diff() > 0).all())
        assert values[0] > score(train).quantile(0.99)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_are_refused(rows):
    with pytest.raises(CalibrationSetTooSmall):
        Mahalanobis.fit(torch.randn(rows, 3))
    with pytest.raises(CalibrationSetTooSmall):
        RelativeMahalanobis.fit(torch.randn(rows, 3), torch.zeros(rows, dtype=torch.int64))


def test_a_class_with_one_row_is_refused_by_name():
    with pytest.raises(CalibrationSetTooSmall, match="class 7 has 1"):
        RelativeMahalanobis.fit(torch.randn(5, 3), torch.tensor([2, 2, 7, 2, 2]))


def test_tensors_of_different_widths_are_refused():
    with pytest.raises(UncertaintyError, match="3 x 3"):
        Mahalanobis(torch.zeros(3), torch.eye(4))
    with pytest.raises(UncertaintyError, match="3 x 3"):
        RelativeMahalanobis(torch.zeros(3), torch.zeros(2, 3), torch.eye(3), torch.eye(2))
    with pytest.raises(UncertaintyError, match="class means of 3"):
        RelativeMahalanobis(torch.zeros(3), torch.zeros(2, 4), torch.eye(3), torch.eye(3))
