"""Mahalanobis distances against scipy's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance
from sklearn.preprocessing import normalize
from torch import Tensor

from dubio.uncertainty import DeterministicPass, Outputs
from dubio.uncertainty.detection.mahalanobis import (
    InputClassMahalanobis,
    InputMahalanobis,
    Mahalanobis,
    RelativeMahalanobis,
    UnitMahalanobis,
    UnitRelativeMahalanobis,
)
from dubio.uncertainty.detection.measures import product
from dubio.uncertainty.detection.scores import Score
from dubio.uncertainty.errors import CalibrationSetTooSmall

TINY = 1e-9


def _pass(rows: Tensor) -> DeterministicPass:
    return DeterministicPass(inputs_BF=rows, logits_BC=torch.zeros(len(rows), 2), features_BF=rows)


def _fit(rows: Tensor, **options: float) -> InputMahalanobis:
    return InputMahalanobis.fit(_pass(rows), torch.zeros(len(rows), dtype=torch.int64), **options)


def _fit_relative(rows: Tensor, labels_N: Tensor, **options: float) -> RelativeMahalanobis:
    return RelativeMahalanobis.fit(_pass(rows), labels_N, **options)


def _score(score: Score, rows: Tensor) -> Tensor:
    return score.score(Outputs(_pass(rows), torch.zeros(0, len(rows), 2)))


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
    np.testing.assert_allclose(_score(_fit(train, shrinkage=TINY), asked), due, rtol=1e-3)


def test_distances_are_scipys():
    train, _ = _classes()
    mean, inverse = train.double().mean(0).numpy(), np.linalg.inv(np.cov(train.double().numpy().T, bias=True))
    due = [mahalanobis(row, mean, inverse) ** 2 for row in train[:20].double().numpy()]
    np.testing.assert_allclose(_score(_fit(train, shrinkage=TINY), train[:20]), due, rtol=1e-3)


def test_relative_distances_are_differences_of_scikit_learns():
    train, labels_N = _classes()
    asked = _classes(seed=1)[0].double().numpy()
    rows = train.double().numpy()
    means = np.stack([rows[labels_N == label].mean(0) for label in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(rows - means[labels_N])
    to_classes = np.stack([within.mahalanobis(asked - mean) for mean in means], axis=1).min(1)
    due = to_classes - EmpiricalCovariance().fit(rows).mahalanobis(asked)
    relative = _fit_relative(train, labels_N, shrinkage=TINY)
    np.testing.assert_allclose(_score(relative, torch.tensor(asked).float()), due, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "kind", [Mahalanobis, InputClassMahalanobis, UnitMahalanobis, RelativeMahalanobis, UnitRelativeMahalanobis]
)
def test_class_distances_are_scikit_learns_on_rows_of_length_1_where_the_name_says_so(kind):
    train, labels_N = _classes()
    asked = _classes(seed=1)[0].double().numpy()
    rows = train.double().numpy()
    if kind in (UnitMahalanobis, UnitRelativeMahalanobis):
        asked_as_given, asked, rows = asked, normalize(asked), normalize(rows)
    else:
        asked_as_given = asked
    means = np.stack([rows[labels_N == label].mean(0) for label in range(3)])
    within = EmpiricalCovariance(assume_centered=True).fit(rows - means[labels_N])
    due = np.stack([within.mahalanobis(asked - mean) for mean in means], axis=1).min(1)
    if kind in (RelativeMahalanobis, UnitRelativeMahalanobis):
        due = due - EmpiricalCovariance().fit(rows).mahalanobis(asked)
    fitted = kind.fit(_pass(train), labels_N, shrinkage=TINY)
    np.testing.assert_allclose(_score(fitted, torch.tensor(asked_as_given).float()), due, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("kind", [UnitMahalanobis, UnitRelativeMahalanobis])
@pytest.mark.parametrize("factor", [1e-30, 1e-3, 1e30])
def test_on_rows_of_length_1_the_length_does_not_matter(kind, factor):
    train, labels_N = _classes()
    fitted = kind.fit(_pass(train), labels_N)
    asked = _classes(seed=1)[0]
    torch.testing.assert_close(_score(fitted, factor * asked), _score(fitted, asked), rtol=1e-3, atol=1e-3)


def test_labels_may_have_gaps():
    train, labels_N = _classes()
    spread = torch.tensor([7, 40, 1000])[labels_N]
    assert torch.equal(_score(_fit_relative(train, spread), train), _score(_fit_relative(train, labels_N), train))


def test_shrinkage_adds_its_share_of_the_mean_variance():
    rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 2 and 1/2
    score = _score(_fit(rows, shrinkage=0.1), torch.eye(2))
    assert score.tolist() == pytest.approx([1 / 2.125, 1 / 0.625])


@pytest.mark.parametrize("shrinkage", [1e-3, 0.1])
def test_an_axis_that_never_varies_keeps_distances_finite(shrinkage):
    train, labels_N = _classes()
    train = torch.cat([train, torch.full((len(train), 2), 3.0)], dim=1)
    for score in (_fit(train, shrinkage=shrinkage), _fit_relative(train, labels_N, shrinkage=shrinkage)):
        assert bool(torch.isfinite(_score(score, train)).all())
    off = train[:1].clone()
    off[0, -1] += 100.0
    assert _score(_fit(train, shrinkage=shrinkage), off) > _score(_fit(train, shrinkage=shrinkage), train).max()


def test_rows_that_are_all_alike_keep_distances_finite():
    train, labels_N = torch.ones(10, 4), torch.arange(10) % 2
    for score in (_fit(train), _fit_relative(train, labels_N)):
        assert bool(torch.isfinite(_score(score, train)).all())


def test_farther_is_stranger():
    train, labels_N = _classes()
    direction = torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    far = torch.tensor([[10.0], [100.0], [1e4], [1e6]]) * direction
    for score in (_fit(train), _fit_relative(train, labels_N)):
        values = _score(score, far)
        assert bool((values.diff() > 0).all())
        assert values[0] > _score(score, train).quantile(0.99)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_are_refused(rows):
    with pytest.raises(CalibrationSetTooSmall):
        _fit(torch.randn(rows, 3))
    with pytest.raises(CalibrationSetTooSmall):
        _fit_relative(torch.randn(rows, 3), torch.zeros(rows, dtype=torch.int64))


def test_a_class_with_one_row_is_refused_by_name():
    with pytest.raises(CalibrationSetTooSmall, match="class 7 has 1"):
        _fit_relative(torch.randn(5, 3), torch.tensor([2, 2, 7, 2, 2]))


def test_the_distances_of_many_classes_take_no_memory_a_class_and_feature():
    classes, width, batch = 200, 128, 256
    generator = torch.Generator().manual_seed(5)
    rows, labels_N = torch.randn(2 * classes, width, generator=generator), torch.arange(2 * classes) % classes
    fitted = _fit_relative(rows, labels_N)
    seen = Outputs(_pass(torch.randn(batch, width, generator=generator)), torch.zeros(2, batch, 2))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        fitted.score(seen)
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert largest < 8 * batch * classes * width / 16


def test_axes_of_which_one_varies_ten_thousand_times_less_than_the_other_are_told_apart():
    # Variances 1 and 1e-8 along turned axes: in single precision their covariance would have no inverse.
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=torch.float64)).Q
    rows = (torch.randn(500, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e-4]) @ turn).float()
    due = EmpiricalCovariance().fit(rows.double().numpy()).mahalanobis(rows.double().numpy())
    np.testing.assert_allclose(_score(_fit(rows, shrinkage=1e-14), rows), due, rtol=1e-2, atol=1e-2)
    whitening = _fit_relative(rows, torch.arange(500) % 2, shrinkage=1e-14).gaussians.whitening
    distances = ((rows - rows.mean(0)) @ whitening).double().square().sum(-1)
    np.testing.assert_allclose(distances, due, rtol=1e-2, atol=1e-2)


def test_far_rows_are_told_apart_in_double_precision():
    # The relative distance is a difference of two large squares, which single precision would round to nothing.
    train, labels_N = _classes()
    fitted = _fit_relative(train, labels_N)
    far = 1e4 * torch.randn(50, 5, generator=torch.Generator().manual_seed(3))
    classes = fitted.gaussians
    white = product((far - classes.mean_F).float(), classes.whitening_FG).double()
    weights = torch.cat([classes.precision_F, torch.ones(white.shape[1] - 5, dtype=torch.float64)])
    to_classes = ((white.unsqueeze(1) - classes.class_means_CG).square() * weights).sum(-1)
    due = to_classes.amin(1) - white[:, :5].square().sum(-1)
    assert _score(fitted, far).dtype == torch.float64
    np.testing.assert_allclose(_score(fitted, far), due, rtol=1e-12)


def test_a_thousandth_of_the_mean_variance_is_added_by_default():
    rows = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 2 and 1/2, 1.25 on average
    score = _fit(rows)
    assert _score(score, torch.eye(2)).tolist() == pytest.approx([1 / 2.00125, 1 / 0.50125], rel=1e-6)
    relative = _fit_relative(rows, torch.tensor([0, 0, 1, 1]))  # one class varies along each axis, by 2 and 1/2 overall
    gaussians = relative.gaussians
    assert gaussians.to_all(torch.eye(2)).tolist() == pytest.approx([1 / 2.00125, 1 / 0.50125], rel=1e-6)
    to_classes = gaussians.to_classes(torch.eye(2)).tolist()
    assert to_classes == [pytest.approx([due] * 2, rel=1e-6) for due in (1 / 2.00125, 1 / 0.50125)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_another_precision_give_the_same_distances(dtype):
    train, labels_N = _classes()
    train = train.to(torch.bfloat16).float() if dtype == torch.bfloat16 else train.half().float()  # what both can hold
    for fit in (_fit, lambda rows: _fit_relative(rows, labels_N)):
        torch.testing.assert_close(_score(fit(train.to(dtype)), train.to(dtype)), _score(fit(train), train))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [1e3, 1e5, 1e8])
def test_rows_far_from_0_and_close_together_are_told_apart(mean, dtype):
    """Against scipy, on the very rows: moved as far as their type has digits for."""
    if dtype == torch.float32:
        mean = min(mean, 1e5)
    train, labels_N = _classes(200)
    rows = (train.double() + mean).to(dtype)
    exact = rows.double().numpy()
    centre, inverse = exact.mean(0), np.linalg.inv(np.cov((exact - exact.mean(0)).T, bias=True))
    due = [mahalanobis(row, centre, inverse) ** 2 for row in exact]
    np.testing.assert_allclose(_score(_fit(rows, shrinkage=TINY), rows), due, rtol=1e-3)
    moved = torch.from_numpy(exact - mean)
    relative = _score(_fit_relative(rows, labels_N), rows)
    np.testing.assert_allclose(relative, _score(_fit_relative(moved, labels_N), moved), rtol=1e-3, atol=1e-3)


def test_contributions_are_the_closed_form_and_sum_to_the_distance():
    train, _ = _classes()
    asked = 3 * _classes(rows=20, seed=1)[0]
    fitted = _fit(train, shrinkage=TINY)
    given = fitted.contributions(asked)
    z = asked.double().numpy() - train.double().numpy().mean(0)
    inverse = np.linalg.inv(np.cov(train.double().numpy().T, bias=True))
    np.testing.assert_allclose(given, z * (z @ inverse), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(given.sum(1), _score(fitted, asked), rtol=1e-5)
    assert bool((given < 0).any())  # correlated numbers make each other likelier
