"""Masked classes: numbers as large as -1e6, or -inf, must not hide what the other classes say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor, nn

from dubio.uncertainty.detection import measures
from dubio.uncertainty.errors import NoDropoutFound, UnsupportedNetwork
from dubio.uncertainty.magnitude import magnitude
from tests.quick import quick_committee

MASKS = (-1e6, -1e30, -math.inf)
X = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))


class Masked(nn.Module):
    """Five classes of which the network masks the fourth."""

    def __init__(self, value: float, p: float = 0.5, across_rows: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 5))
        self.value, self.across_rows = value, across_rows
        self.register_buffer("masked", torch.arange(5) == 3)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return (logits + self.across_rows * logits.mean(0)).masked_fill(self.masked, self.value)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[1.0, -3.0, 2.0]], 3.0),
        ([[1.0, -3.0, -1e6]], 3.0),
        ([[1.0, -3.0, -math.inf]], 3.0),
        ([[1.0, -103.0], [2.0, -103.0]], 103.0),  # which is still a probability, the smallest there is
        ([[-1e6, -1e6 + 2]], 1e6),  # both are as likely as their difference says
        ([[5.0, math.inf], [1.0, math.nan]], 0.0),  # what overflows has no magnitude
    ],
)
def test_the_magnitude_is_that_of_finite_logits_whose_class_has_a_probability(logits, expected):
    assert magnitude(torch.tensor(logits)) == expected


@pytest.mark.parametrize("value", MASKS)
@pytest.mark.parametrize("strategy", ["traced", "vmap", "fold", "loop"])
def test_members_of_a_network_that_masks_a_class_are_found_to_vary(value, strategy):
    network = Masked(value).eval()
    committee = quick_committee(network, X[:1], 16, strategy=strategy)
    open_KBC = quick_committee(network.body, X[:1], 16, strategy="loop")(X)
    logits_KBC, others = committee(X), [0, 1, 2, 4]
    torch.testing.assert_close(logits_KBC[..., others], open_KBC[..., others])
    assert bool((logits_KBC[..., 3] == value).all())

    # Against the definition, in double precision, by scipy.
    probs_KBC = softmax(open_KBC[..., others].double().numpy(), axis=-1)
    mean_BC, std_BC = committee.predictive_moments(X)
    np.testing.assert_allclose(mean_BC[:, others], probs_KBC.mean(0), atol=1e-6)
    np.testing.assert_allclose(std_BC[:, others], probs_KBC.std(0), atol=1e-6)
    assert not mean_BC[:, 3].any()
    assert not std_BC[:, 3].any()
    summary = measures.summarise(measures.softmax(logits_KBC))
    total_B, expected_B = entropy(probs_KBC.mean(0), axis=-1), entropy(probs_KBC, axis=-1).mean(0)
    np.testing.assert_allclose(summary.predictive_entropy_B, total_B, atol=1e-6)
    np.testing.assert_allclose(summary.expected_entropy_B, expected_B, atol=1e-6)
    np.testing.assert_allclose(summary.mutual_information_B, total_B - expected_B, atol=1e-6)


@pytest.mark.parametrize("value", MASKS)
def test_members_that_agree_are_refused_whatever_is_masked(value):
    network = Masked(value).eval()
    with torch.no_grad():
        network.body[3].weight.zero_()  # nothing that was dropped reaches the logits
    with pytest.raises(NoDropoutFound, match="gave the same logits"):
        quick_committee(network, X[:1], 16)


@pytest.mark.parametrize("value", MASKS)
def test_rows_that_depend_on_each_other_are_refused_whatever_is_masked(value):
    with pytest.raises(UnsupportedNetwork, match="whatever shares its batch"):
        quick_committee(Masked(value, across_rows=1.0).eval(), X[:1], 16)
