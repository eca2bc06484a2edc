"""What a committee does without is kept, with the reason, and said once."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Committee
from dubio.uncertainty.errors import StrategyNotApplicable, UnsupportedNetwork
from dubio.uncertainty.execution.choice import NAMES
from dubio.uncertainty.execution.fallback import Dropped, Fallbacks
from tests.uncertainty.chains import NO_CHAINS, NOT_THINNABLE, THINNABLE, built


class Untraceable(nn.Module):
    """Skips a connection, and asks what a trace cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, torch._subclasses.FakeTensor) or torch.fx.experimental.proxy_tensor.get_proxy_mode():
            raise KeyError("no trace of me")
        return self.head(x + self.drop(self.first(x)))


class DiffersInLargeBatches(nn.Module):
    """Members that are folded into one batch of more than four rows get another answer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.drop(self.first(x))) * (2 if len(x) > 4 else 1)


class Branching(nn.Module):
    """Python decides by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.first(x))
        return self.head(h) if h.abs().sum() > 0 else x.new_zeros(len(x), 4)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.drop, self.head = nn.GRU(12, 8, batch_first=True), nn.Dropout(0.3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.drop(x)[:, None])[0][:, -1])


def _committee(network: nn.Module) -> Committee:
    return Committee(network.eval(), torch.randn(1, 12), num_samples=6)


def _said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Without what others say meanwhile, such as the garbage collector's finds."""
    return [record for record in caplog.records if record.name.split(".")[0] == "dubio"]


def _reasons(network: nn.Module) -> dict[str, Dropped]:
    report = _committee(network).audit()
    dropped = {each.name: each for each in report.dropped}
    # Every strategy is accounted for, once.
    assert sorted([*report.autotuner.agreeing, *(dropped.keys() - {"oneDNN kernels"})]) == sorted(NAMES)
    assert all(f"{name} " in str(report) and each.reason in str(report) for name, each in dropped.items())
    return dropped


def test_a_network_whose_tracing_raises_says_so_and_is_a_warning(caplog):
    caplog.set_level(logging.INFO, logger="dubio")
    traced = _reasons(Untraceable())["traced"]
    assert traced == Dropped("traced", "KeyError: 'no trace of me'", failed=True)
    (warning,) = [record for record in _said(caplog) if record.levelno == logging.WARNING]
    assert "Untraceable runs by vmap" in warning.message or "Untraceable runs by fold" in warning.message
    assert "strategies that failed: traced (KeyError: 'no trace of me')" in warning.message


def test_a_strategy_that_disagrees_says_by_how_much_and_is_a_warning(caplog):
    caplog.set_level(logging.INFO, logger="dubio")
    dropped = _reasons(DiffersInLargeBatches())
    assert dropped["fold"].failed
    assert dropped["fold"].reason.startswith("Disagreement: its logits lie up to ")
    assert [record.levelno for record in _said(caplog)] == [logging.WARNING, logging.INFO]


def test_what_does_not_apply_is_no_warning(caplog):
    caplog.set_level(logging.INFO, logger="dubio")
    skipping = _reasons(built(*NO_CHAINS["skip connection"]).network)
    assert set(skipping) == {"chain", "thinned", "packed"}
    assert "no chain of layers: add reads something else" in skipping["chain"].reason
    assert set(_reasons(built(*THINNABLE["mlp"]).network)) == {"packed", "traced"}
    assert set(_reasons(built(*NOT_THINNABLE["dropout at the end"]).network)) == {"thinned", "packed", "traced"}
    recurrent = _reasons(Recurrent())
    assert set(recurrent) == {"vmap", "chain", "thinned", "packed", "traced"}
    assert "torch.vmap has no such operation: Batching rule not implemented for aten::gru" in recurrent["vmap"].reason
    branching = _reasons(Branching())
    assert set(branching) == {"vmap", "fold", "chain", "thinned", "packed", "traced"}
    assert all("reads values out of its tensors" in each.reason for each in branching.values())
    assert {record.levelno for record in _said(caplog)} == {logging.INFO}
    assert len(_said(caplog)) == 5  # once for each committee
    assert all("strategies that do not apply: " in record.message for record in _said(caplog))


def test_a_strategy_that_was_asked_for_and_dropped_is_refused_with_the_reason():
    with pytest.raises(UnsupportedNetwork, match=r"got 'fold', which does not: .*reads values out of its tensors"):
        Committee(Branching().eval(), torch.randn(1, 12), num_samples=6, strategy="fold")


def test_double_precision_does_without_onednn_and_says_so():
    network = built(*THINNABLE["mlp"], dtype=torch.float64).network
    report = Committee(network, torch.randn(1, 12, dtype=torch.float64), num_samples=6).audit()
    (kernels,) = [each for each in report.dropped if each.name == "oneDNN kernels"]
    assert not kernels.failed
    assert "not for float64 on cpu" in kernels.reason


def test_a_broken_rule_is_no_fallback():
    fallbacks = Fallbacks()
    with pytest.raises(UnsupportedNetwork, match="broken"), fallbacks.attempt("vmap"):
        raise UnsupportedNetwork("broken")
    with fallbacks.attempt("fold"):
        raise StrategyNotApplicable("not here")
    with fallbacks.attempt("traced"):
        raise RuntimeError
    with fallbacks.attempt("chain"):
        raise RuntimeError(f"{'x' * 1000}\nand more")
    assert fallbacks.dropped[:2] == [Dropped("fold", "not here"), Dropped("traced", "RuntimeError: ", failed=True)]
    assert fallbacks.dropped[2].reason == f"RuntimeError: {'x' * 286}"
