from __future__ import annotations

import pytest
import torch
from torch import nn

from models import InputSpec, NetworkSpec, Predictor
from serving.errors import SelfTestFailed
from serving.selftest import check


class Dying(nn.Module):
    """Alive near zero, where a committee is probed first; all its units are dead further out."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.relu(1 - x.abs())))


def test_a_good_model_passes(predictor: Predictor) -> None:
    check("bars", predictor)


def test_members_that_never_disagree_on_real_inputs_are_refused() -> None:
    inputs = InputSpec(kind="numbers", shape=(8,), mean=(0.0,) * 8, std=(1.0,) * 8, low=100.0, high=200.0)
    spec = NetworkSpec(class_path="tests.Dying", init_args={})
    silent = Predictor.build(Dying().eval(), spec, inputs, ("a", "b", "c"), num_samples=4)
    with pytest.raises(SelfTestFailed, match=r"'silent' failed its self-test: .* all agree"):
        check("silent", silent)
