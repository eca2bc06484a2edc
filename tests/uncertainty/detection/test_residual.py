"""Residuals against the papers' formulas, with scikit-learn's and numpy's subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import null_space
from scipy.special import logsumexp
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor, nn

from dubio.uncertainty import DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.residual import OrthogonalResidual, VirtualLogit
from dubio.uncertainty.detection.serialization import dump, load
from dubio.uncertainty.errors import CalibrationSetTooSmall, UncertaintyError


def _network(width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4)).eval().requires_grad_(False)


def _read(network: nn.Module, rows: int, seed: int, scale: float = 1.0) -> DeterministicPass:
    x = scale * torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))
    return FeatureTap(network, x[:1]).read(x)


def _score(score, seen: DeterministicPass) -> Tensor:
    return score.score(Outputs(seen, seen.logits_BC.softmax(-1).unsqueeze(0)))


@pytest.mark.parametrize(("width", "kept"), [(12, 6), (768, 512)])
def test_the_virtual_logit_is_the_papers(width, kept):
    network = _network(width)
    train, asked = _read(network, 900, 1), _read(network, 30, 2, scale=3.0)
    weight, bias = network[2].weight.double().numpy(), network[2].bias.double().numpy()
    # As in the authors' code: the origin, scikit-learn's covariance about it, the axes of the smallest eigenvalues.
    origin = -np.linalg.pinv(weight) @ bias
    rows = train.features().double().numpy() - origin
    values, vectors = np.linalg.eig(EmpiricalCovariance(assume_centered=True).fit(rows).covariance_)
    axes = np.ascontiguousarray(vectors.real.T[np.argsort(-values.real)[kept:]].T)
    alpha = train.logits_BC.double().numpy().max(-1).mean() / np.linalg.norm(rows @ axes, axis=-1).mean()
    residual = np.linalg.norm((asked.features().double().numpy() - origin) @ axes, axis=-1)
    due = residual * alpha - logsumexp(asked.logits_BC.double().numpy(), axis=-1)
    np.testing.assert_allclose(_score(VirtualLogit.fit(train, torch.zeros(900)), asked), due, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "varying"), [(50, 2), (50, 1), (3, 3)])
def test_of_features_that_vary_in_few_axes_half_of_those_are_kept(rows, varying):
    network = _network()
    network[0].weight.data[varying:] = 0
    network[0].bias.data[:] = 0
    network[2].bias.data[:] = 0
    train = _read(network, rows, 1)
    fitted = VirtualLogit.fit(train, torch.zeros(rows))
    assert fitted.residual_FR.shape == (12, 12 - varying // 2)
    assert bool(torch.isfinite(_score(fitted, train)).all())
    # What varies in an axis in which the training rows do not is strange.
    moved = DeterministicPass(train.inputs_BF, train.logits_BC, train.features() + torch.eye(12)[-1])
    assert bool((_score(fitted, moved) > _score(fitted, train)).all())


def test_features_that_are_all_where_logits_are_zero_are_refused():
    network = _network()
    for layer in (network[0], network[2]):
        layer.bias.data[:] = 0
    network[0].weight.data[:] = 0
    with pytest.raises(UncertaintyError, match="`vim`"):
        VirtualLogit.fit(_read(network, 50, 1), torch.zeros(50))


def test_no_training_rows_are_refused():
    with pytest.raises(CalibrationSetTooSmall, match="`vim`, but got none"):
        VirtualLogit.fit(_read(_network(), 3, 1).take(slice(0, 0)), torch.zeros(0))


def test_the_orthogonal_residual_is_the_sum_of_both_standardised_terms():
    network = _network()
    train, asked = _read(network, 300, 1), _read(network, 40, 2, scale=2.0)
    labels_N = torch.arange(300) % 4
    blind = null_space(network[2].weight.double().numpy())
    features = train.features().double().numpy()
    residuals = (features - features.mean(0)) @ blind
    directions = np.stack([residuals[labels_N.numpy() == label].mean(0) for label in range(4)])

    def terms(seen: DeterministicPass) -> np.ndarray:
        residual = (seen.features().double().numpy() - features.mean(0)) @ blind
        mine = directions[seen.logits_BC.argmax(-1).numpy()]
        lengths = np.linalg.norm(residual, axis=-1) * np.linalg.norm(mine, axis=-1)
        return np.stack([logsumexp(seen.logits_BC.double().numpy(), axis=-1), (residual * mine).sum(-1) / lengths])

    known = terms(train)
    due = -((terms(asked) - known.mean(1, keepdims=True)) / known.std(1, keepdims=True)).sum(0)
    np.testing.assert_allclose(_score(OrthogonalResidual.fit(train, labels_N), asked), due, rtol=1e-4, atol=1e-4)


def test_a_head_that_sees_every_axis_is_refused():
    with pytest.raises(UncertaintyError, match="more features than the 3 axes that the head sees for the score `core`"):
        OrthogonalResidual.fit(_read(_network(3), 50, 1), torch.arange(50) % 4)


def test_a_class_that_is_not_among_the_training_rows_has_no_direction():
    train = _read(_network(), 300, 1)
    fitted = OrthogonalResidual.fit(train, torch.tensor([0, 1, 3]).repeat(100))
    assert fitted.directions_CR.norm(dim=-1).tolist() == pytest.approx([1, 1, 0, 1])
    assert bool(torch.isfinite(_score(fitted, train)).all())


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (VirtualLogit, {"origin_F": torch.zeros(5)}),
        (VirtualLogit, {"alpha": 2}),
        (OrthogonalResidual, {"mean_F": torch.zeros(5)}),
        (OrthogonalResidual, {"directions_CR": torch.zeros(4, 3)}),
        (OrthogonalResidual, {"energy_std": 0.0}),
        (OrthogonalResidual, {"cosine_std": -1.0}),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(kind, changes):
    state = dump(kind.fit(_read(_network(), 50, 1), torch.arange(50) % 4))
    with pytest.raises(UncertaintyError):
        load(kind, {**state, **changes}, "where")
