"""Class Gaussians keep their digits where distances are small and rows far from 0, and refuse what does not fit."""

from __future__ import annotations

import math

import pytest
import torch

from dubio.uncertainty.detection.gaussians import SHRINKAGE, ClassGaussians
from dubio.uncertainty.errors import UncertaintyError

GENERATOR = torch.Generator().manual_seed(0)
LABELS_N = torch.arange(300) % 3
ROWS_NF = torch.randn(300, 4, generator=GENERATOR, dtype=torch.float64) + LABELS_N[:, None]


def _due(rows_NF, labels_N, asked_BF, shrinkage):
    """The closed forms: from all rows ``[B]``, and from each class ``[B, C]``."""
    rows_NF, asked_BF = rows_NF.double(), asked_BF.double()
    means_CF = torch.stack([rows_NF[label == labels_N].mean(0) for label in labels_N.unique()])

    def inverse(residuals_NF):
        covariance_FF = residuals_NF.T @ residuals_NF / len(residuals_NF)
        ridge = shrinkage * covariance_FF.diagonal().mean()
        return torch.linalg.inv(covariance_FF + ridge * torch.eye(len(covariance_FF), dtype=torch.float64))

    to_mean_BF, to_means_BCF = asked_BF - rows_NF.mean(0), asked_BF[:, None] - means_CF
    within_FF = inverse(rows_NF - means_CF[labels_N.unique(return_inverse=True)[1]])
    to_all_B = torch.einsum("bf,fg,bg->b", to_mean_BF, inverse(rows_NF - rows_NF.mean(0)), to_mean_BF)
    return to_all_B, torch.einsum("bcf,fg,bcg->bc", to_means_BCF, within_FF, to_means_BCF)


@pytest.mark.parametrize("apart", [0.0, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize(
    ("rows", "width", "classes"), [(600, 4, 3), (600, 5, 2), (300, 1, 3), (300, 3, 20), (30, 50, 5), (90, 24, 30)]
)
def test_both_distances_are_the_quadratic_forms_of_their_covariances(rows, width, classes, apart):
    """For more and fewer classes, and rows, than features; for classes that are one, and for such as lie far apart."""
    generator = torch.Generator().manual_seed(rows + width)
    labels_N = torch.arange(rows) % classes
    mixing_FF = torch.eye(width).double() + 0.3 * torch.randn(width, width, generator=generator, dtype=torch.float64)
    means_CF = apart * torch.randn(classes, width, generator=generator, dtype=torch.float64)
    drawn_NF = torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing_FF + means_CF[labels_N]
    asked_BF = drawn_NF[:20] + torch.randn(20, width, generator=generator, dtype=torch.float64)
    fitted = ClassGaussians.fit(drawn_NF, labels_N)
    to_all_B, to_classes_BC = _due(drawn_NF, labels_N, asked_BF, SHRINKAGE)
    torch.testing.assert_close(fitted.to_all(asked_BF), to_all_B, rtol=1e-5, atol=1e-5)
    # Single precision has seven digits of numbers that are so many standard deviations from the mean.
    torch.testing.assert_close(fitted.to_classes(asked_BF), to_classes_BC, rtol=1e-5 * max(1, apart), atol=1e-5)
    distances = fitted.distances(asked_BF)
    torch.testing.assert_close(distances.to_all_B, fitted.to_all(asked_BF), rtol=0, atol=0)
    torch.testing.assert_close(distances.to_nearest_B, fitted.to_classes(asked_BF).amin(-1), rtol=0, atol=0)
    assert fitted.whitening_FG.shape[1] <= 4 * math.ceil((width + min(width, classes)) / 4)


def test_one_class_is_all_rows():
    fitted = ClassGaussians.fit(ROWS_NF, torch.zeros_like(LABELS_N))
    asked_BF = ROWS_NF[:9] + 0.5
    torch.testing.assert_close(fitted.to_classes(asked_BF).squeeze(1), fitted.to_all(asked_BF))
    assert torch.equal(fitted.distances(asked_BF).to_nearest_B, fitted.to_all(asked_BF))


def test_rows_that_are_all_like_their_class_mean_are_its_and_others_are_far_from_it():
    rows_NF = 3.0 * torch.eye(4, dtype=torch.float64)[LABELS_N]
    fitted = ClassGaussians.fit(rows_NF, LABELS_N)
    distances_NC = fitted.to_classes(rows_NF)
    assert torch.equal(distances_NC.argmin(-1), LABELS_N)
    assert float(distances_NC.amin(-1).max()) < 1e-2
    assert float(fitted.distances(rows_NF + 0.1).to_nearest_B.min()) > 1e6
    assert bool(torch.isfinite(distances_NC).all())


def test_distances_are_the_quadratic_form_of_the_covariance_within_classes():
    fitted = ClassGaussians.fit(ROWS_NF, LABELS_N, shrinkage=1e-9)
    means_CF = torch.stack([ROWS_NF[label == LABELS_N].mean(0) for label in range(3)])
    inverse_FF = torch.linalg.inv((ROWS_NF - means_CF[LABELS_N]).T.cov(correction=0))
    differences = ROWS_NF[:, None] - means_CF
    due_NC = torch.einsum("ncf,fg,ncg->nc", differences, inverse_FF, differences)
    torch.testing.assert_close(fitted.to_classes(ROWS_NF), due_NC, rtol=1e-4, atol=1e-4)


def test_rows_far_from_zero_and_close_together_keep_their_digits():
    near = ClassGaussians.fit(ROWS_NF, LABELS_N).to_classes(ROWS_NF)
    far = ClassGaussians.fit(ROWS_NF + 1e6, LABELS_N).to_classes(ROWS_NF + 1e6)
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)


def test_a_class_mean_has_no_distance_from_its_class_and_none_is_negative():
    fitted = ClassGaussians.fit(ROWS_NF, LABELS_N)
    means_CF = torch.stack([ROWS_NF[label == LABELS_N].mean(0) for label in range(3)])
    distances_CC = fitted.to_classes(means_CF)
    assert distances_CC.diagonal().tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert bool((distances_CC >= 0).all())


@pytest.mark.parametrize(
    ("whitening", "precision", "means"),
    [
        ((4, 4), (4,), (3, 5)),
        ((4, 5), (4,), (3, 4)),
        ((5, 4), (4,), (3, 4)),
        ((4, 4), (5,), (3, 4)),
        ((4, 6), (4,), (3, 6)),
        ((4, 0), (4,), (3, 0)),
    ],
)
def test_widths_that_do_not_belong_together_are_refused(whitening, precision, means):
    with pytest.raises(UncertaintyError, match="Expected a whitening matrix"):
        ClassGaussians(torch.zeros(4), torch.zeros(whitening), torch.ones(precision), torch.zeros(means))
