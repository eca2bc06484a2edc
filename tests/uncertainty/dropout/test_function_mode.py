"""Dropout of every kind, however it is called: members are by-hand equations, moments are torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.function_mode import Call
from dubio.uncertainty.errors import NoDropoutFound, UnsupportedNetwork, UnsupportedSite
from tests.quick import quick_committee

W = 8
# Of SELU: what it saturates to, from its published constants.
ALPHA = -1.6732632423543772 * 1.0507009873554805


class Net(nn.Module):
    """Linear, a function of one's own, linear."""

    def __init__(
        self, between: Callable[[Net, Tensor], Tensor], inner: nn.Module | None = None, width: int = W
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner, self.head = nn.Linear(6, W), inner or nn.Identity(), nn.Linear(width, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.first(x)))


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def _alpha(h: Tensor, keep: Tensor, p: float) -> Tensor:
    """Alpha dropout from its definition (Klambauer 2017): set to alpha', then scale and shift."""
    a = (1 - p + ALPHA**2 * p * (1 - p)) ** -0.5
    return a * torch.where(keep > 0, h, torch.tensor(ALPHA)) - a * p * ALPHA


ELEMENTWISE = {
    "nn.Dropout": (lambda self, h: self.inner(h), nn.Dropout(0.3)),
    "nn.Dropout in place": (lambda self, h: self.inner(h), nn.Dropout(0.3, inplace=True)),
    "F.dropout": (lambda self, h: F.dropout(h, 0.3, self.training), None),
    "F.dropout in place": (lambda self, h: F.dropout(h, 0.3, self.training, True), None),
    "torch.dropout": (lambda self, h: torch.dropout(h, 0.3, self.training), None),
    "torch.dropout by name": (lambda self, h: torch.dropout(input=h, train=self.training, p=0.3), None),
    "torch.dropout_": (lambda self, h: torch.dropout_(h, 0.3, self.training), None),
    "a rate that only train mode shows": (lambda self, h: F.dropout(h, 0.3 if self.training else 0.0), None),
}
AFFINE = {
    "nn.AlphaDropout": (lambda self, h: self.inner(h), nn.AlphaDropout(0.3)),
    "nn.AlphaDropout in place": (lambda self, h: self.inner(h), nn.AlphaDropout(0.3, inplace=True)),
    "F.alpha_dropout": (lambda self, h: F.alpha_dropout(h, 0.3, self.training), None),
    "torch.alpha_dropout": (lambda self, h: torch.alpha_dropout(h, 0.3, self.training), None),
    "torch.alpha_dropout_": (lambda self, h: torch.alpha_dropout_(h, 0.3, self.training), None),
}


@pytest.mark.parametrize(("between", "inner"), [*ELEMENTWISE.values(), *AFFINE.values()], ids=[*ELEMENTWISE, *AFFINE])
def test_members_and_moments_are_those_of_the_kind(between, inner, keeps, in_training, distributed_alike):
    affine = any(between is each for each, _ in AFFINE.values())
    network, x = Net(between, inner).eval(), torch.randn(4, 6)
    before = x.clone()
    committee = quick_committee(network, x[:1], num_samples=5)
    (site,) = committee.sites
    assert (site.kind, site.p, site.shape) == ("alpha_dropout" if affine else "dropout", 0.3, (W,))
    with torch.no_grad():
        h = network.first(x)
        expected = torch.stack(
            [network.head(_alpha(h, keep, 0.3) if affine else h * keep / 0.7) for keep in keeps(committee)[0]]
        )
    _close(committee(x), expected)
    _close(committee(x[:1]), expected[:, :1])
    assert torch.equal(x, before)
    distributed_alike(quick_committee(network, x[:1], num_samples=4000)(x[:1])[:, 0], in_training(network, x[:1], 4000))


CHANNELS = {
    "nn.FeatureAlphaDropout": nn.FeatureAlphaDropout(0.4),
    "nn.Dropout1d in place": nn.Dropout1d(0.4, inplace=True),
    "nn.Dropout2d on three axes": nn.Dropout2d(0.4),
    "torch.feature_dropout": lambda h, training: torch.feature_dropout(h, 0.4, training),
    "torch.feature_dropout_": lambda h, training: torch.feature_dropout_(h, 0.4, training),
    "torch.feature_alpha_dropout": lambda h, training: torch.feature_alpha_dropout(h, 0.4, training),
    "F.feature_alpha_dropout": lambda h, training: F.feature_alpha_dropout(h, 0.4, training),
}


@pytest.mark.parametrize("drop", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input:UserWarning")
def test_whole_channels_are_dropped(drop, keeps, in_training, distributed_alike):
    if isinstance(drop, nn.Module):
        network = Net(lambda self, h: self.inner(h.unflatten(1, (4, 2))).flatten(1), drop).eval()
    else:
        network = Net(lambda self, h: drop(h.unflatten(1, (4, 2)), self.training).flatten(1)).eval()
    x = torch.randn(3, 6)
    committee = quick_committee(network, x[:1], num_samples=5)
    (site,) = committee.sites
    assert site.shape == (4, 1)
    with torch.no_grad():
        h = network.first(x).unflatten(1, (4, 2))
        dropped = [_alpha(h, keep, 0.4) if "alpha" in site.kind else h * keep / 0.6 for keep in keeps(committee)[0]]
        expected = torch.stack([network.head(each.flatten(1)) for each in dropped])
    _close(committee(x), expected)
    distributed_alike(quick_committee(network, x[:1], num_samples=4000)(x[:1])[:, 0], in_training(network, x[:1], 4000))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_alpha_dropout_keeps_mean_and_variance_of_standard_units(p):
    # Of 4096 members at 400 units that are themselves standard normal: 0 and 1, but for the noise of the units.
    network = nn.Sequential(nn.AlphaDropout(p), nn.Identity(), nn.Dropout(0.0)).eval()
    x = torch.randn(1, 400)
    if p == 1:
        with pytest.raises(NoDropoutFound):
            quick_committee(network, x, num_samples=8)
        return
    units_KN = quick_committee(network, x, num_samples=4096)(x)[:, 0].double()
    scale = (1 - p + ALPHA**2 * p * (1 - p)) ** -0.5
    assert abs(float(units_KN.mean() - scale * (1 - p) * x.double().mean())) < 5 * 2 / math.sqrt(units_KN.numel())
    assert float(units_KN.mean()) == pytest.approx(0, abs=5 / math.sqrt(400))
    assert float(units_KN.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / 400))


def test_a_call_in_place_is_seen_by_whoever_holds_the_tensor(keeps):
    # As in training: the skip connection adds what was dropped, not what was there before.
    def residual(self: Net, h: Tensor) -> Tensor:
        return h + self.inner(h)

    def unused(self: Net, h: Tensor) -> Tensor:
        self.inner(h)
        return h

    x = torch.randn(3, 6)
    for between, times in ((residual, 2.0), (unused, 1.0)):
        network = Net(between, nn.Dropout(0.3, inplace=True)).eval()
        committee = quick_committee(network, x[:1], num_samples=4)
        with torch.no_grad():
            expected = torch.stack(
                [network.head(times * network.first(x) * keep / 0.7) for keep in keeps(committee)[0]]
            )
        _close(committee(x), expected)
        _close(committee(x), expected)


def test_dropping_the_input_in_place_leaves_the_callers_tensor_alone(keeps):
    network = nn.Sequential(nn.Dropout(0.3, inplace=True), nn.Linear(6, 3)).eval()
    x = torch.randn(3, 6)
    before = x.clone()
    committee = quick_committee(network, x[:1], num_samples=4)
    with torch.no_grad():
        expected = torch.stack([network[1](x * keep / 0.7) for keep in keeps(committee)[0]])
    _close(committee(x), expected)
    assert torch.equal(x, before)


def test_dropping_a_weight_in_place_is_refused():
    network = Net(lambda self, h: F.linear(h, F.dropout(self.inner.weight, 0.3, False, True)), nn.Linear(W, W)).eval()
    with pytest.raises(UnsupportedSite, match="in place on a parameter"):
        quick_committee(network, torch.randn(1, 6))


class DropConnect(nn.Linear):
    """A linear layer whose weights are dropped (Wan 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.dropout(self.weight, 0.4, self.training), self.bias)


def test_drop_connect_drops_weights_for_all_rows_alike(keeps):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, W), nn.Tanh(), DropConnect(W, 3)).eval()
    x = torch.randn(4, 6)
    committee = quick_committee(network, x[:1], num_samples=5)
    (site,) = committee.sites
    assert (site.kind, site.shape, site.axis, site.name) == ("dropout", (3, W), None, "2")
    with torch.no_grad():
        h = network[:2](x)
        expected = torch.stack(
            [h @ (network[2].weight * keep / 0.6).T + network[2].bias for keep in keeps(committee)[0]]
        )
    _close(committee(x), expected)
    _close(committee(x[:1]), expected[:, :1])


def test_drop_connect_has_the_moments_of_the_closed_form():
    torch.manual_seed(0)
    network, x = DropConnect(W, 3).eval(), torch.randn(1, W)
    logits_KC = quick_committee(network, x, num_samples=4096)(x)[:, 0].double()
    with torch.no_grad():
        due_mean_C, due_var_C = network(x)[0].double(), 0.4 / 0.6 * (network.weight * x).double().square().sum(1)
    fourth_C = (logits_KC - logits_KC.mean(0)).pow(4).mean(0)
    var_C = logits_KC.var(0, correction=0)
    assert ((logits_KC.mean(0) - due_mean_C) / (due_var_C / 4096).sqrt()).abs().max() < 4.5
    assert ((var_C - due_var_C) / ((fourth_C - var_C**2) / 4096).sqrt()).abs().max() < 4.5


VARIATIONAL = {
    "a mask of ones for all time steps": lambda h, training: h * F.dropout(h.new_ones(len(h), 1, 2), 0.4, training),
    "channels of the transposed": lambda h, training: F.dropout1d(h.mT, 0.4, training).mT,
    "one mask for all rows": lambda h, training: h * F.dropout(h.new_ones(1, 1, 2), 0.4, training),
}


@pytest.mark.parametrize("drop", VARIATIONAL.values(), ids=VARIATIONAL)
def test_variational_dropout_has_one_mask_for_all_time_steps(drop, keeps):
    network = Net(lambda self, h: drop(h.unflatten(1, (4, 2)), self.training).flatten(1)).eval()
    x = torch.randn(3, 6)
    committee = quick_committee(network, x[:1], num_samples=5)
    with torch.no_grad():
        h = network.first(x).unflatten(1, (4, 2))
        masks = [keep.flatten() / 0.6 for keep in keeps(committee)[0]]
        expected = torch.stack([network.head((h * mask).flatten(1)) for mask in masks])
    _close(committee(x), expected)


def test_a_time_step_at_a_time_has_a_site_each(keeps):
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.drop, self.head = nn.GRUCell(3, W), nn.Dropout(0.3), nn.Linear(W, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), W)
            for step in x.unbind(1):
                h = self.drop(self.cell(step, h))
            return self.head(h)

    network, x = Cell().eval(), torch.randn(3, 4, 3)
    committee = quick_committee(network, x[:1], num_samples=4)
    assert [site.name for site in committee.sites] == ["drop", "drop#2", "drop#3", "drop#4"]
    expected = []
    with torch.no_grad():
        for k in range(4):
            h = torch.zeros(3, W)
            for step, keep in zip(x.unbind(1), keeps(committee), strict=True):
                h = network.cell(step, h) * keep[k] / 0.7
            expected.append(network.head(h))
    _close(committee(x), torch.stack(expected))
    with pytest.raises(UnsupportedNetwork, match="must not depend on the input"):
        committee(x[:, :2])


def test_a_rate_that_depends_on_the_input_is_refused():
    network = Net(lambda self, h: F.dropout(h, 0.3 if float(h.abs().max()) < 1e3 else 0.6, self.training)).eval()
    committee = quick_committee(network, torch.randn(1, 6), num_samples=4)
    for rows in (1, 40):
        with pytest.raises(UnsupportedNetwork, match=r"dropout with p=0.3, as when .* met dropout with p=0.6"):
            committee(torch.full((rows, 6), 1e9))


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "bound"),
    [
        (F.dropout, (), {}, (0.5, True, False)),
        (F.dropout, (0.1, False, True), {}, (0.1, False, True)),
        (F.dropout, (), {"inplace": True, "p": 0.2}, (0.2, True, True)),
        (torch.dropout, (0.1, True), {}, (0.1, True, False)),
        (torch.dropout, (), {"train": False, "p": 0.1}, (0.1, False, False)),
        (torch.alpha_dropout_, (0.1, True), {}, (0.1, True, True)),
    ],
)
def test_arguments_are_bound_as_torch_declares_them(func, args, kwargs, bound):
    x = torch.ones(1)
    call = Call.of(func, (x, *args), kwargs)
    assert (call.p, call.training, call.inplace) == bound
    assert call.x is x
