"""Scores of features and head against the papers' formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from dubio.uncertainty import DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.head_scores import BoundaryDistance, FeatureNorm, RectifiedActivations
from dubio.uncertainty.detection.serialization import dump, load
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


def _network(classes: int = 4, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, classes, bias=bias)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _inputs(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))


def _read(network: nn.Module, x: Tensor) -> DeterministicPass:
    return FeatureTap(network, x[:1]).read(x)


def _score(score, seen: DeterministicPass) -> Tensor:
    return score.score(Outputs(seen, seen.logits_BC.softmax(-1).unsqueeze(0)))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_boundary_distance_is_the_papers(classes):
    network = _network(classes)
    train, asked = _read(network, _inputs(200, 1)), _read(network, 3 * _inputs(30, 2))
    weight = network[2].weight.double().numpy()
    mean = train.features().double().numpy().mean(0)
    due = []
    for h, f in zip(asked.features().double().numpy(), asked.logits_BC.double().numpy(), strict=True):
        y = f.argmax()
        terms = [abs(f[y] - f[c]) / np.linalg.norm(weight[y] - weight[c]) for c in range(classes) if c != y]
        due.append(-np.mean(terms) / np.linalg.norm(h - mean))
    fitted = BoundaryDistance.fit(train, torch.zeros(200))
    np.testing.assert_allclose(_score(fitted, asked), due, rtol=1e-5)


def test_the_boundary_distance_is_how_far_the_features_really_are_from_the_boundary():
    network = _network(2)
    train = _read(network, _inputs(200, 1))
    fitted = BoundaryDistance.fit(train, torch.zeros(200))
    weight, bias = network[2].weight.double(), network[2].bias.double()
    normal, offset = weight[0] - weight[1], bias[0] - bias[1]
    features = train.features().double()
    distance_N = (features @ normal + offset).abs() / normal.norm()
    due = -distance_N / (features - features.mean(0)).norm(dim=-1)
    torch.testing.assert_close(_score(fitted, train), due, rtol=1e-4, atol=1e-6)


def test_two_classes_with_equal_rows_have_no_boundary():
    network = _network()
    network[2].weight.data[1] = network[2].weight.data[3]
    with pytest.raises(UncertaintyError, match="`fdbd`"):
        BoundaryDistance.fit(_read(network, _inputs(50, 1)), torch.zeros(50))


@pytest.mark.parametrize("rows", [7, 200])
@pytest.mark.parametrize("bias", [True, False])
def test_rectified_activations_are_the_papers(rows, bias):
    network = _network(bias=bias)
    train, asked = _read(network, _inputs(rows, 1)), _read(network, 3 * _inputs(30, 2))
    clip = np.percentile(train.features().numpy(), 90, method="inverted_cdf")
    clipped = np.minimum(asked.features().double().numpy(), clip)
    due = clipped @ network[2].weight.double().numpy().T + (network[2].bias.double().numpy() if bias else 0)
    fitted = RectifiedActivations.fit(train, torch.zeros(rows))
    np.testing.assert_allclose(_score(fitted, asked), -logsumexp(due, axis=-1), rtol=1e-6)


def test_the_feature_norm_is_numpys_turned_round():
    asked = _read(_network(), _inputs(30, 2))
    due = -np.linalg.norm(asked.features().double().numpy(), axis=-1)
    np.testing.assert_allclose(_score(FeatureNorm(), asked), due, rtol=1e-10)


@pytest.mark.parametrize("kind", [BoundaryDistance, RectifiedActivations])
def test_no_training_rows_are_refused(kind):
    network = _network()
    with pytest.raises(CalibrationSetTooSmall, match="got none"):
        kind.fit(_read(network, _inputs(3, 1)).take(slice(0, 0)), torch.zeros(0))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (BoundaryDistance, {"gaps_CC": torch.ones(4, 3)}),
        (BoundaryDistance, {"gaps_CC": torch.ones(4, 4) - torch.eye(4)}),
        (RectifiedActivations, {"bias_C": torch.ones(3)}),
        (RectifiedActivations, {"clip": 1}),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(kind, changes):
    state = dump(kind.fit(_read(_network(), _inputs(50, 1)), torch.zeros(50)))
    with pytest.raises(UncertaintyError):
        load(kind, {**state, **changes}, "where")
