"""Strategies: whichever runs the members, the answer is that of the plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dubio.models import MLP
from dubio.uncertainty import Committee
from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.execution import strategies
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.timing import TimeBudget
from tests.uncertainty.chains import ALL_MEMBERS, NO_CHAINS, THINNABLE, K, banks_of, built, strategies_of


@pytest.mark.parametrize("name", ["mlp", "the network of the models", "dropout behind a flattening"])
def test_all_strategies_of_a_chain_agree(name):
    _all_agree(THINNABLE[name], ("chain", "thinned", "vmap", "fold", "loop"))


@pytest.mark.parametrize("name", ["skip connection", "alpha dropout"])
def test_all_strategies_of_another_network_agree(name):
    _all_agree(NO_CHAINS[name], ("traced", "vmap", "fold", "loop"))


def _all_agree(case, expected_names):
    network, shape = built(*case).network, case[1]
    x = torch.randn(20, *shape)
    plain = Committee(network, x[:1], num_samples=6, strategy="loop")
    assert plain.audit().autotuner.agreeing == expected_names
    for name in expected_names:
        committee = Committee(network, x[:1], num_samples=6, strategy=name)
        assert committee.strategy == name
        for rows in (1, 3, 20):
            torch.testing.assert_close(committee(x[:rows]), plain(x[:rows]), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(committee(x[:rows], 2, 3), plain(x[:rows])[3:5], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "pools", "global pooling"])
def test_a_strategy_that_disagrees_is_not_taken(name, monkeypatch):
    case = THINNABLE[name]
    network, x = built(*case).network, torch.randn(3, *case[1])
    right = Committee(network, x[:1], num_samples=6, strategy="chain")(x)
    monkeypatch.setattr(strategies.BatchedChain, "__call__", lambda self, x, members: torch.zeros(6, len(x), 4))
    committee = Committee(network, x[:1], num_samples=6)
    assert "chain" not in committee.audit().autotuner.agreeing
    (chain,) = [each for each in committee.audit().dropped if each.name == "chain"]
    assert chain.failed
    torch.testing.assert_close(committee(x), right, rtol=1e-5, atol=1e-5)


def test_inputs_of_another_shape_are_answered_too():
    # What was recorded holds for one shape; a network that pools takes any.
    case = built(*THINNABLE["global pooling"])
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
        order.append(committee.audit().autotuner.agreeing[0])
    assert order == ["vmap", "fold"]


def _build(
    network: nn.Module, x: Tensor, budget: int = 2**28, seconds: float = 10.0
) -> tuple[dict[str, Strategy], Fallbacks]:
    plan, fallbacks = audit(network, x), Fallbacks()
    with torch.inference_mode():
        return strategies.build(plan, banks_of(plan, K), x[:1], budget, TimeBudget(seconds), fallbacks), fallbacks


def test_a_trace_runs_no_module_and_other_batches_do():
    case = built(*NO_CHAINS["skip connection"])
    traced = strategies_of(case)["traced"]
    rows: list[int] = []
    case.network.layers[0].register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    largest = strategies.TRACED_BATCHES[-1]
    with torch.inference_mode():
        for batch in (1, 3, 5, largest):
            torch.testing.assert_close(traced(case.inputs(batch), ALL_MEMBERS), case.loop(case.inputs(batch)))
            del rows[-K:]  # the loop's own
        assert rows == []
        traced(case.inputs(largest + 1), ALL_MEMBERS)
        traced(case.inputs(1), slice(0, K - 1))
    assert rows == [largest + 1, 1]


@pytest.mark.parametrize(
    ("budget", "seconds", "reason"),
    [(2**28, -1.0, "no time was left"), (1, 10.0, "arithmetic for one row outweighs")],
)
def test_traces_are_for_small_work_and_take_limited_time(budget, seconds, reason):
    case = built(*NO_CHAINS["skip connection"])
    available, fallbacks = _build(case.network, case.inputs(1), budget, seconds)
    assert "traced" not in available
    (traced,) = [each for each in fallbacks.dropped if each.name == "traced"]
    assert not traced.failed
    assert reason in traced.reason


def test_weights_beyond_the_budget_are_not_copied():
    # Numbers of 4 bytes; behind the first site, seven thinned members have weights of their own, at half of the units.
    network = MLP(in_features=12, widths=(40, 30), num_classes=4, rates=(0.5, 0.5)).eval()
    x, weights = torch.randn(1, 12), 4 * (12 * 40 + 40 * 30 + 30 * 4)
    for budget, expected in ((weights - 1, set()), (weights, {"chain"}), (2**20, {"chain", "thinned"})):
        available, fallbacks = _build(network, x, budget)
        assert available.keys() & {"chain", "thinned"} == expected
        reasons = {each.name: each.reason for each in fallbacks.dropped}
        assert ("budget" in reasons.get("chain", "")) == ("chain" not in expected)
        assert ("thinned" in reasons) == ("thinned" not in expected)
