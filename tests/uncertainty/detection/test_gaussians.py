"""Class Gaussians keep their digits where distances are small and rows far from 0, and refuse what does not fit."""

from __future__ import annotations

import pytest
import torch

from dubio.uncertainty.detection.gaussians import ClassGaussians
from dubio.uncertainty.errors import UncertaintyError

GENERATOR = torch.Generator().manual_seed(0)
LABELS_N = torch.arange(300) % 3
ROWS_NF = torch.randn(300, 4, generator=GENERATOR, dtype=torch.float64) + LABELS_N[:, None]


def test_distances_are_the_quadratic_form_of_the_covariance_within_classes():
    fitted = ClassGaussians.fit(ROWS_NF, LABELS_N, shrinkage=1e-9)
    means_CF = torch.stack([ROWS_NF[label == LABELS_N].mean(0) for label in range(3)])
    inverse_FF = torch.linalg.inv((ROWS_NF - means_CF[LABELS_N]).T.cov(correction=0))
    differences = ROWS_NF[:, None] - means_CF
    due_NC = torch.einsum("ncf,fg,ncg->nc", differences, inverse_FF, differences)
    torch.testing.assert_close(fitted.distances(ROWS_NF), due_NC, rtol=1e-4, atol=1e-4)


def test_rows_far_from_zero_and_close_together_keep_their_digits():
    near = ClassGaussians.fit(ROWS_NF, LABELS_N).distances(ROWS_NF)
    far = ClassGaussians.fit(ROWS_NF + 1e6, LABELS_N).distances(ROWS_NF + 1e6)
    torch.testing.assert_close(far, near, rtol=1e-3, atol=1e-3)


def test_a_class_mean_has_no_distance_from_its_class_and_none_is_negative():
    fitted = ClassGaussians.fit(ROWS_NF, LABELS_N)
    means_CF = torch.stack([ROWS_NF[label == LABELS_N].mean(0) for label in range(3)])
    distances_CC = fitted.distances(means_CF)
    assert distances_CC.diagonal().tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert bool((distances_CC >= 0).all())


@pytest.mark.parametrize(("means", "whitening"), [((3, 5), (4, 4)), ((3, 4), (4, 5)), ((3, 4), (5, 5))])
def test_widths_that_do_not_belong_together_are_refused(means, whitening):
    with pytest.raises(UncertaintyError, match="Expected"):
        ClassGaussians(torch.zeros(4), torch.zeros(means), torch.zeros(whitening))
