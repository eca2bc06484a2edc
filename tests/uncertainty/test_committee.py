"""The committee: members that are what they should be, whoever asks.

That asking leaves everything else alone is tested in test_isolation.py, and what is refused in
test_committee_refuses.py.
"""

from __future__ import annotations

import doctest
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubio.uncertainty import Committee
from dubio.uncertainty import committee as committee_module
from dubio.uncertainty.execution import decision, masks
from tests.uncertainty.net import Net

BATCHES = (1, 2, 3, 5, 16, 33)


def _scaled(committee: Committee) -> list[Tensor]:
    keeps = masks.draw(committee.sites, committee.num_samples, committee.seed)
    cpu = torch.device("cpu")
    return [masks.scale(keep, site.p, torch.float32, cpu) for keep, site in zip(keeps, committee.sites, strict=True)]


def _by_hand(network: nn.Sequential, x: Tensor, banks: list[Tensor]) -> Tensor:
    """Every member's logits from nothing but the layers and the masks, the dropout layers themselves left out."""
    members = []
    with torch.no_grad():
        for k in range(len(banks[0])):
            h, site = x, 0
            for layer in network:
                if isinstance(layer, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
                    h, site = h * banks[site][k], site + 1
                else:
                    h = layer(h)
            members.append(h)
    return torch.stack(members)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
def test_members_are_the_network_with_their_masks(drawn, batch):
    case, committee = drawn
    x = case.inputs(batch)
    _close(committee(x), _by_hand(case.network, x, _scaled(committee)))


# 4. The same input gives the same answer, whoever shares its batch.


def test_the_same_batch_gives_the_same_bits(drawn):
    case, committee = drawn
    for batch in BATCHES:
        assert torch.equal(committee(case.inputs(batch)), committee(case.inputs(batch)))


def test_the_other_rows_of_a_batch_do_not_matter(drawn):
    case, committee = drawn
    x = case.inputs(40)
    alone = torch.cat([committee(row[None]) for row in x], dim=1)
    for batch in (2, 3, 4, 7, 16, 31, 40):
        together = torch.cat([committee(part) for part in x.split(batch)], dim=1)
        _close(together, alone)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    _close(committee(x[shuffled]), alone[:, shuffled])


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_bad_rows_beside_them_do_not_matter_either(drawn, poison):
    case, committee = drawn
    x = case.inputs(3)
    x[1] = poison
    _close(committee(x)[:, [0, 2]], committee(case.inputs(3)[[0, 2]]))


@pytest.mark.parametrize("budget", [1, 4000, 20_000])
def test_chunks_do_not_matter(drawn, budget):
    case, whole = drawn
    chunked = case.committee(memory_budget=budget)
    for batch in (1, 2, 7, 33):
        _close(chunked(case.inputs(batch)), whole(case.inputs(batch)))


@pytest.mark.parametrize("asked", [1, 2, 5, 8])
def test_fewer_samples_are_the_first_members(drawn, asked):
    case, committee = drawn
    for batch in (1, 5, 33):
        _close(committee(case.inputs(batch), num_samples=asked), committee(case.inputs(batch))[:asked])


@pytest.mark.parametrize(("first", "asked"), [(0, 3), (3, 2), (5, None), (7, 1)])
def test_any_run_of_members_are_those_of_the_whole_answer(drawn, first, asked):
    case, committee = drawn
    stop = 8 if asked is None else first + asked
    for batch in (1, 5, 33):
        _close(committee(case.inputs(batch), asked, first), committee(case.inputs(batch))[first:stop])


def test_what_a_trace_cannot_see_is_not_frozen_into_it():
    # A value that leaves torch as a Python number would be the same for ever in a trace.
    def scaled_by_first(net: Net, x: Tensor) -> Tensor:
        factors = torch.tensor([[abs(values[0])] for values in x.tolist()])
        return net.head(net.drop(net.first(x) * factors))

    network = Net(scaled_by_first).eval()
    committee = Committee(network, torch.randn(1, 6), num_samples=4)
    x = torch.randn(3, 6)
    with torch.no_grad():
        hidden = network.first(x) * x[:, :1].abs()
        expected = torch.stack([network.head(hidden * mask) for mask in _scaled(committee)[0]])
    for rows in (slice(0, 1), slice(0, 2), slice(0, 3)):
        _close(committee(x[rows]), expected[:, rows])


# 5. Members that do not vary are refused.


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_moments_after_one_linear_layer(p):
    torch.manual_seed(0)
    linear = nn.Linear(12, 5)
    network = nn.Sequential(nn.Dropout(p), linear).eval()
    x = torch.randn(1, 12)
    committee = Committee(network, x, num_samples=4096)
    logits_KC = committee(x)[:, 0].double()
    mean_C, var_C = logits_KC.mean(0), logits_KC.var(0, correction=0)
    with torch.no_grad():
        due_mean_C = network(x)[0].double()
        due_var_C = p / (1 - p) * (linear.weight * x).double().square().sum(1)
    fourth_C = (logits_KC - mean_C).pow(4).mean(0)
    z_mean_C = (mean_C - due_mean_C) / (due_var_C / 4096).sqrt()
    z_var_C = (var_C - due_var_C) / ((fourth_C - var_C**2) / 4096).sqrt()
    assert z_mean_C.abs().max() < 4
    assert z_var_C.abs().max() < 4


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
def test_members_are_distributed_as_torchs_own_dropout(build, axes):
    case, draws = build(axes, False), 4000
    x = case.inputs(1)
    ours_KC = case.committee(num_samples=draws)(x)[:, 0].double()
    torch.manual_seed(5)
    case.network.train()
    with torch.no_grad():
        theirs_KC = case.network(x.expand(draws, *case.shape)).double()

    def moments(logits_KC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, var_C = logits_KC.mean(0), logits_KC.var(0, correction=0)
        fourth_C = (logits_KC - mean_C).pow(4).mean(0)
        # Delta method: Var(std) = Var(var) / (4 var).
        return mean_C, var_C.sqrt(), var_C / draws, (fourth_C - var_C**2) / draws / (4 * var_C)

    mean, std, mean_error, std_error = moments(ours_KC)
    due_mean, due_std, due_mean_error, due_std_error = moments(theirs_KC)
    assert ((mean - due_mean) / (mean_error + due_mean_error).sqrt()).abs().max() < 4
    assert ((std - due_std) / (std_error + due_std_error).sqrt()).abs().max() < 4


# 7. Memory is bounded.


class Largest(TorchDispatchMode):
    """The largest result of any operation, in bytes: what a batched tensor really takes, not one member's share."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        # Weights in an order of their own have no storage that could be looked at.
        taken = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor) and not arg.is_mkldnn}
        # A view takes no memory of its own.
        if isinstance(output, Tensor) and output.untyped_storage().data_ptr() not in taken:
            self.bytes = max(self.bytes, output.numel() * output.element_size())
        return output


@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize("strategy", ["chain", "thinned", "vmap", "fold"])
def test_memory_stays_within_the_budget(strategy, batch):
    budget = 2**17
    network = nn.Sequential(nn.Linear(6, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 2)).eval()
    x = torch.randn(batch, 6)
    seen: dict[int, int] = {}
    for memory_budget in (budget, 2**28):
        # By name: which strategy is fastest differs by machine, and with it what is held at once.
        committee = Committee(network, x, num_samples=100, memory_budget=memory_budget, strategy=strategy)
        with Largest() as largest:
            committee(x)
        seen[memory_budget] = largest.bytes
    # All members' hidden layers at once are a kibibyte for each member of each row; a thinned one holds what is kept.
    hidden = 100 * batch * 1024
    assert seen[budget] <= budget < 0.1 * hidden <= seen[2**28] <= hidden


# Strategies and arguments.


def test_a_plain_network_is_run_as_the_chain_that_it_is(case, monkeypatch):
    monkeypatch.setattr(decision, "MIN_SPEEDUP", math.inf)  # the rule, whatever this machine finds fastest
    # One- and three-dimensional convolutions are no layers of a chain, and are traced.
    due = "chain" if len(case.shape) in {1, 3} else "traced"
    assert case.committee().strategy.split()[0].strip(",") == due


def test_a_recurrent_network_is_folded_into_the_batch():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.gru, self.head = nn.Dropout(0.3), nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.drop(self.gru(self.drop(x))[0][:, -1]))

    network = Recurrent().eval()
    committee = Committee(network, torch.randn(1, 5, 4), num_samples=6)
    assert committee.strategy == "fold"
    x = torch.randn(7, 5, 4)
    with torch.no_grad():
        expected = torch.stack(
            [
                network.head(network.gru(x * before)[0][:, -1] * after)
                for before, after in zip(*_scaled(committee), strict=True)
            ]
        )
    _close(committee(x), expected)
    _close(committee(x[:1], num_samples=2), expected[:2, :1])


def test_a_branch_on_a_value_falls_back_to_the_loop():
    def guarded(net: Net, x: Tensor) -> Tensor:
        h = net.drop(net.first(x))
        return net.head(h) if h.abs().sum() > 0 else torch.zeros(len(x), 3)

    network = Net(guarded).eval()
    committee = Committee(network, torch.randn(1, 6), num_samples=6)
    assert committee.strategy == "loop"
    x = torch.randn(7, 6)
    with torch.no_grad():
        expected = torch.stack([network.head(network.first(x) * mask) for mask in _scaled(committee)[0]])
    _close(committee(x), expected)


def test_no_rows_give_no_rows(drawn):
    case, committee = drawn
    assert committee(case.inputs(0)).shape == (8, 0, 3)
    assert committee(case.inputs(0), num_samples=2).shape == (2, 0, 3)


def test_fingerprint_tells_committees_apart(build):
    drawn = [build(0, False).committee(**options) for options in ({}, {"seed": 1}, {"num_samples": 9})]
    drawn += [build(0, False, p=0.3).committee(), build(1, False).committee()]
    assert len({committee.fingerprint for committee in drawn}) == len(drawn)
    assert build(0, True).committee().fingerprint == drawn[0].fingerprint


def test_double_precision_stays_double(build):
    case = build(2, True)
    committee = Committee(case.network.double(), case.inputs(1).double(), num_samples=4)
    x = case.inputs(5).double()
    # Factors of 1/(1-p) that were rounded to float32 would show at 1e-8.
    keeps = masks.draw(committee.sites, 4, 0)
    exact = [masks.scale(keep, 0.4, torch.float64, torch.device("cpu")) for keep in keeps]
    expected = _by_hand(case.network, x, exact)
    assert committee(x).dtype == torch.float64
    torch.testing.assert_close(committee(x), expected, rtol=1e-12, atol=1e-12)


def test_skip_connections_keep_what_was_dropped_beside_them():
    def residual(net: Net, x: Tensor) -> Tensor:
        h = F.relu(net.first(x))
        return net.head(h + net.drop(h))

    network = Net(residual).eval()
    committee = Committee(network, torch.randn(1, 6), num_samples=5)
    x = torch.randn(4, 6)
    with torch.no_grad():
        h = F.relu(network.first(x))
        expected = torch.stack([network.head(h + h * mask) for mask in _scaled(committee)[0]])
    _close(committee(x), expected)
    _close(committee(x[:1]), expected[:, :1])


def test_the_example_of_the_docstring_runs():
    with torch.random.fork_rng(devices=[]):
        outcome = doctest.testmod(committee_module)
    assert (outcome.failed, outcome.attempted) == (0, 9)


def test_moments_are_of_the_softmax_over_all_members():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    committee = Committee(network, torch.zeros(1, 4), num_samples=7, seed=1, measure_seconds=0.0)
    x = torch.randn(5, 4)
    probs_KBC = committee(x).softmax(-1).numpy()
    mean_BC, std_BC = committee.predictive_moments(x)
    assert mean_BC.shape == std_BC.shape == (5, 3)
    np.testing.assert_allclose(mean_BC, probs_KBC.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std_BC, probs_KBC.std(0, ddof=0), rtol=1e-5, atol=1e-7)
    assert [moment.shape for moment in committee.predictive_moments(x[:0])] == [(0, 3), (0, 3)]


def test_a_committee_says_what_it_is():
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    committee = Committee(network, torch.zeros(1, 4), num_samples=7, seed=1, strategy="loop")
    assert repr(committee) == (
        "Committee(Sequential, num_samples=7, seed=1, strategy='loop', sites=[1: dropout(p=0.5, shape=[8])])"
    )


class Slow(nn.Module):
    """Takes longer for a pass than finding the fastest strategy may, as any network does on a busy machine."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return self.head(torch.cat([self.body(x), x], dim=1))


@pytest.mark.parametrize(("seconds", "sizes"), [(0.0, []), (0.005, [])])
def test_measuring_begins_no_call_when_the_time_is_up(seconds, sizes):
    committee = Committee(Slow().eval(), torch.zeros(1, 4), num_samples=4, measure_seconds=seconds)
    assert [each.rows for each in committee.audit().autotuner.measured if each.seconds] == sizes
