"""Steps: what is recorded, and what is refused with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models import MLP
from dubio.uncertainty.errors import StrategyNotApplicable
from tests.uncertainty.execution.test_packed import LENGTH, built, on_steps

REFUSED = {
    "two convolutions that read different masks": (
        lambda: on_steps(
            nn.Dropout1d(0.3), nn.Conv1d(12, 8, 1), nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Linear(16, 4),
            run=lambda own, x: own[5](_different(own, own[1](x))),
        ),
        "do not all read the same",
    ),
    "steps beside what is dropped": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Linear(8, 4),
            run=lambda own, x: own[3](own[2]((own[1](x) + x).transpose(1, 2)).amax(2)),
        ),
        "__add__ of steps|add of steps",
    ),
    "a second convolution": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Conv1d(8, 8, 1), nn.Linear(8, 4),
            run=lambda own, x: own[4](own[3](own[2](own[1](x).transpose(1, 2)).relu()).amax(2)),
        ),
        "conv1d of steps",
    ),
    "a pool over the channels": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Linear(LENGTH, 4),
            run=lambda own, x: own[3](own[2](own[1](x).transpose(1, 2)).amax(1)),
        ),
        "amax of steps",
    ),
    "a pool over some": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Linear(24, 4),
            run=lambda own, x: own[3](F.max_pool1d(own[2](own[1](x).transpose(1, 2)), 3).flatten(1)),
        ),
        "max_pool1d of steps",
    ),
    "groups": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1, groups=2), nn.Linear(8, 4),
            run=lambda own, x: own[3](own[2](own[1](x).transpose(1, 2)).amax(2)),
        ),
        "conv1d of steps",
    ),
    "a site between convolution and pool": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Conv1d(12, 8, 1), nn.Dropout(0.3), nn.Linear(8, 4),
            run=lambda own, x: own[4](own[3](own[2](own[1](x).transpose(1, 2))).amax(2)),
        ),
        "does not multiply the steps",
    ),
    "a skip behind the pools": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 4),
            run=lambda own, x: own[4](_skip(own[3], own[2](own[1](x)).amax(1))),
        ),
        "what follows the pools is no chain",
    ),
    "other pools beside": (
        lambda: on_steps(
            nn.Dropout(0.3), nn.Linear(12, 8), nn.Linear(20, 4),
            run=lambda own, x: own[3](torch.cat([own[2](own[1](x)).amax(1), x.mean(1)], 1)),
        ),
        "something else is put together",
    ),
    "alpha dropout": (
        lambda: on_steps(
            nn.AlphaDropout(0.3), nn.Linear(12, 8), nn.Linear(8, 4),
            run=lambda own, x: own[3](own[2](own[1](x)).amax(1)),
        ),
        "does not multiply the steps",
    ),
    "no steps": (lambda: MLP(in_features=LENGTH, num_classes=4), "does not multiply the steps"),
}  # fmt: skip


def _different(own: nn.ModuleList, x: Tensor) -> Tensor:
    return torch.cat([own[2](x.transpose(1, 2)).amax(2), own[4](own[3](x).transpose(1, 2)).amax(2)], 1)


def _skip(layer: nn.Module, x: Tensor) -> Tensor:
    return x + layer(x).relu()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_packed_is_refused_with_the_reason(name):
    build, reason = REFUSED[name]
    with pytest.raises(StrategyNotApplicable, match=reason):
        built(build, torch.float32)
