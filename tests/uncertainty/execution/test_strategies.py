"""Ways: whichever runs the members, the answer is that of the plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dubio.uncertainty import Committee
from dubio.uncertainty.execution import strategies
from dubio.uncertainty.execution.strategies import Masked
from tests.uncertainty.chains import NO_CHAINS, THINNABLE, recorded


@pytest.mark.parametrize("name", ["mlp", "the network of the models", "dropout behind a flattening"])
def test_all_ways_of_a_chain_agree(name):
    _all_agree(THINNABLE[name], ("chain", "thinned", "vmap", "fold", "loop"))


@pytest.mark.parametrize("name", ["skip connection", "alpha dropout"])
def test_all_ways_of_another_network_agree(name):
    _all_agree(NO_CHAINS[name], ("traced", "vmap", "fold", "loop"))


def _all_agree(case, expected_names):
    network, shape = recorded(*case).network, case[1]
    x = torch.randn(20, *shape)
    plain = Committee(network, x[:1], num_samples=6, strategy="loop")
    assert tuple(plain._strategy.strategies) == expected_names
    for name in expected_names:
        committee = Committee(network, x[:1], num_samples=6, strategy=name)
        assert committee.strategy == name
        for rows in (1, 3, 20):
            torch.testing.assert_close(committee(x[:rows]), plain(x[:rows]), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(committee(x[:rows], 2, 3), plain(x[:rows])[3:5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "pools", "global pooling"])
def test_a_way_that_disagrees_is_not_taken(name, monkeypatch):
    case = THINNABLE[name]
    network, x = recorded(*case).network, torch.randn(3, *case[1])
    right = Committee(network, x[:1], num_samples=6, strategy="chain")(x)
    monkeypatch.setattr(strategies.Folded, "__call__", lambda self, x, which: torch.zeros(6, len(x), 4))
    committee = Committee(network, x[:1], num_samples=6)
    assert "chain" not in committee._strategy.strategies
    torch.testing.assert_close(committee(x), right, rtol=1e-5, atol=1e-5)


def test_inputs_of_another_shape_are_answered_too():
    # What was recorded holds for one shape; a network that pools takes any.
    case = recorded(*THINNABLE["global pooling"])
    x = torch.randn(3, 2, 11, 7)
    answers = []
    for name in ("chain", "thinned", "loop"):
        committee = Committee(case.network, torch.randn(1, 2, 12, 12), num_samples=6, strategy=name)
        answers.append(committee(x))
    torch.testing.assert_close(answers[0], answers[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answers[1], answers[2], rtol=1e-5, atol=1e-5)


def test_what_is_mostly_done_before_the_first_site_is_done_once():
    # The last layer alone differs between members; a fold would repeat the others.
    class Wide(nn.Module):
        def __init__(self, first: int, second: int) -> None:
            super().__init__()
            self.drop, self.embed = nn.AlphaDropout(0.2), nn.Linear(64, 64)
            self.shared = nn.ModuleList(nn.Linear(64, 64) for _ in range(first))
            self.own = nn.ModuleList(nn.Linear(64, 64) for _ in range(second))
            self.head = nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            for layer in self.shared:
                x = x + layer(x)
            x = self.drop(x)
            for layer in self.own:
                x = x + layer(x)
            return self.head(x.mean(1))

    x = torch.randn(1, 512, 64)
    order = []
    for first, second in ((4, 1), (0, 5)):
        committee = Committee(Wide(first, second).eval(), x, num_samples=40, measure_seconds=0.0)
        order.append(next(iter(committee._strategy.strategies)))
    assert order == ["vmap", "fold"]


def test_traces_are_for_small_work():
    network, shape = recorded(*NO_CHAINS["skip connection"]).network, (12,)
    committee = Committee(network, torch.randn(1, *shape), num_samples=6)
    traced = committee._strategy.strategies["traced"]
    assert isinstance(traced, Masked)
    assert tuple(traced._graphs) == strategies.TRACED_BATCHES
    few = Committee(network, torch.randn(1, *shape), num_samples=6, measure_seconds=0.0)._strategy.strategies
    assert "traced" not in few  # no time to trace in
