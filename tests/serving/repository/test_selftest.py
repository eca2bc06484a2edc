from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dubio import models
from dubio.models import Ensemble, InputSpec, NetworkSpec, Prediction, Predictor, TextCNN
from dubio.models.inputs.text import TokenizerSpec
from dubio.serving.errors import SelfTestFailed
from dubio.serving.repository import selftest
from dubio.serving.repository.selftest import check


class Dying(nn.Module):
    """Alive near zero, where a committee is probed first; all its units are dead further out."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.relu(1 - x.abs())))


class Drifting(nn.Module):
    """Never gives the same answer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.drop(x)) * (1 + 0.001 * self.calls)


class Exploding(nn.Module):
    """Overflows beyond the numbers that a committee is probed with."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(x.exp()))


def built(network: nn.Module, *, low: float = -1.0, high: float = 1.0) -> Predictor:
    inputs = InputSpec(kind="numbers", shape=(8,), mean=(0.0,) * 8, std=(1.0,) * 8, low=low, high=high)
    spec = NetworkSpec(class_path="tests.Network", init_args={})
    return Predictor.build(network.eval(), spec, inputs, ("a", "b", "c"), num_samples=4)


def test_a_good_model_passes(predictor: Predictor) -> None:
    check("bars", predictor)


def test_a_good_ensemble_passes(predictor: Predictor, second_checkpoint: Path) -> None:
    check("deep", Ensemble.build([predictor, models.load(second_checkpoint)]))


def test_members_that_never_disagree_on_real_inputs_are_refused() -> None:
    with pytest.raises(SelfTestFailed, match=r"'silent' failed its self-test: .* all agree"):
        check("silent", built(Dying(), low=100.0, high=200.0))


def test_an_answer_that_is_not_the_same_twice_is_refused() -> None:
    with pytest.raises(SelfTestFailed, match=r"`probabilities` differs between two calls"):
        check("drifting", built(Drifting()))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SelfTestFailed, match=r"does not take inputs within the range .* overflow"):
        check("exploding", built(Exploding(), low=100.0, high=200.0))


def test_a_model_that_cannot_read_its_own_example_is_refused() -> None:
    tokenizer = TokenizerSpec(
        kind="word", vocabulary=["[PAD]", "[UNK]", "\u3000"], merges=[], lowercase=False, length=4
    )
    inputs = InputSpec(kind="text", shape=(4,), mean=(0.0,), std=(1.0,), low=0, high=2, tokenizer=tokenizer)
    network = TextCNN(vocabulary=3, features=4, width=4, num_classes=2).eval()
    spec = NetworkSpec(class_path="dubio.models.TextCNN", init_args={})
    with pytest.raises(SelfTestFailed, match=r"'blank' failed its self-test: it does not take its own example"):
        check("blank", Predictor.build(network, spec, inputs, ("a", "b"), num_samples=4))


def test_batches_that_would_take_gigabytes_are_not_tried(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    live, tried = 2**30 // selftest.most_rows(predictor), []
    assert live > 1
    compare = selftest._check_repeats

    def record(name: str, golden: Prediction, again: Prediction) -> None:
        tried.append(len(golden.probabilities))
        compare(name, golden, again)

    monkeypatch.setattr(selftest, "_check_repeats", record)
    for most, rows in [(live // 2, [1]), (live * 9, [1, 8]), (live * 33, [1, 8, 32])]:
        tried.clear()
        monkeypatch.setattr(selftest, "_MAX_LIVE", most)
        check("digits", predictor)
        assert tried == rows
