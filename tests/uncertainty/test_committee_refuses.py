"""What a committee refuses: networks whose members would all say the same, and what there is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import NetworkInTrainingMode, NoDropoutFound, UncertaintyError, UnsupportedNetwork
from tests.uncertainty.net import Net


def _dead_end(net: Net, x: Tensor) -> Tensor:
    h = net.first(x)
    net.drop(h)
    return net.head(h)


NO_VARIATION = {
    "no site": nn.Sequential(nn.Linear(6, 3)),
    "p = 0": nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.0), nn.Linear(16, 3), nn.Dropout(0.0)),
    "p = 1": nn.Sequential(nn.Linear(6, 16), nn.Dropout(1.0), nn.Linear(16, 3)),
    "result unused": Net(_dead_end),
    "times zero": Net(lambda net, x: net.head(net.first(x) + 0 * net.drop(net.first(x)))),
    "dead units": nn.Sequential(nn.Linear(6, 67), nn.Threshold(1e9, 0.0), nn.Dropout(0.5), nn.Linear(67, 3)),
}


@pytest.mark.parametrize("network", NO_VARIATION.values(), ids=NO_VARIATION.keys())
def test_a_network_without_variation_is_refused(network):
    with pytest.raises(NoDropoutFound):
        Committee(network.eval(), torch.randn(2, 6), num_samples=8)


@pytest.mark.parametrize("num_samples", [2, 3, 5, 7, 64])
def test_rounding_is_not_variation(num_samples):
    # Equal rows of a matrix product may round differently, depending on where in the matrix they lie.
    torch.manual_seed(num_samples)
    dead = [nn.Linear(6, 67), nn.Threshold(1e9, 0.0), nn.Dropout(0.5)]
    network = nn.Sequential(*dead, nn.Linear(67, 131), nn.ReLU(), nn.Linear(131, 67), nn.ReLU(), nn.Linear(67, 3))
    with pytest.raises(NoDropoutFound):
        Committee(network.eval(), torch.randn(1, 6), num_samples=num_samples)


def test_the_refusal_lists_the_sites_and_why():
    with pytest.raises(NoDropoutFound, match=r"dropout\(p=1, shape=\[16\]\).*reach the output"):
        Committee(NO_VARIATION["p = 1"].eval(), torch.randn(1, 6))


def test_an_example_of_zeros_does_not_hide_the_variation():
    network = nn.Sequential(nn.Linear(6, 16, bias=False), nn.Dropout(0.5), nn.Linear(16, 3, bias=False)).eval()
    assert Committee(network, torch.zeros(1, 6), num_samples=8).sites


# 6. Masks: tests/uncertainty/execution/test_masks.py. Their moments after one linear layer have a closed form.


def test_sites_that_depend_on_the_input_are_refused():
    def fickle(net: Net, x: Tensor) -> Tensor:
        h = net.drop(net.first(x))
        return net.head(net.drop(h) if bool(x.abs().max() > 500) else h)

    committee = Committee(Net(fickle).eval(), torch.randn(1, 6), num_samples=4)
    committee(torch.randn(2, 6))
    with pytest.raises(UnsupportedNetwork, match="must not depend on the input"):
        committee(torch.full((2, 6), 1000.0))


def test_a_network_in_train_mode_is_refused(case):
    case.network.train()
    with pytest.raises(NetworkInTrainingMode):
        case.committee()


@pytest.mark.parametrize("num_samples", [-1, 0, 1, 4097, 2.5, "8", None, True])
def test_a_wrong_committee_size_is_refused(build, num_samples):
    with pytest.raises(UncertaintyError, match=r"num_samples.*\[2, 4096\]"):
        build(0, False).committee(num_samples=num_samples)


@pytest.mark.parametrize("asked", [-1, 0, 9])
def test_asking_more_members_than_there_are_is_refused(build, asked):
    committee = build(0, False).committee()
    with pytest.raises(UnsupportedNetwork, match=r"num_samples.*\[1, 8\]"):
        committee(torch.randn(1, 6), num_samples=asked)


@pytest.mark.parametrize(
    ("first", "asked", "rule"), [(8, 1, r"first.*\[0, 7\]"), (-1, 1, "first"), (6, 3, r"\[1, 2\]")]
)
def test_members_that_there_are_not_are_refused(build, first, asked, rule):
    with pytest.raises(UnsupportedNetwork, match=rule):
        build(0, False).committee()(torch.randn(1, 6), num_samples=asked, first=first)
