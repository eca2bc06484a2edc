"""Tiny networks with dropout of every kind, and one trained network with its outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dubio.uncertainty import Committee, DeterministicPass, FeatureTap, Outputs
from dubio.uncertainty.detection.blocks import Block
from dubio.uncertainty.execution import masks
from tests.quick import quick_committee

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DROPOUTS = {0: nn.Dropout, 1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
SHAPES = {0: (6,), 1: (2, 5), 2: (2, 4, 4), 3: (2, 3, 3, 3)}
CASES = [(axes, batch_norm) for axes in DROPOUTS for batch_norm in (False, True)]


@dataclass(frozen=True)
class Case:
    """A network in eval mode and what it eats."""

    network: nn.Module
    shape: tuple[int, ...]

    def inputs(self, batch: int, seed: int = 0) -> Tensor:
        return torch.randn((batch, *self.shape), generator=torch.Generator().manual_seed(seed))

    def committee(self, num_samples: int = 8, **options: Any) -> Committee:
        return quick_committee(self.network, self.inputs(1, seed=99), num_samples=num_samples, **options)


def _build(axes: int, batch_norm: bool, p: float = 0.4) -> Case:
    """Two dropout sites of ``Dropout``, ``Dropout1d``, ``2d`` or ``3d``; running statistics are not at their start."""
    shape = SHAPES[axes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(axes)
        if axes == 0:
            first, second, width = nn.Linear(6, 16), nn.Linear(16, 12), 12
        else:
            first, second = (CONVOLUTIONS[axes](channels, 4, 3, padding=1) for channels in (2, 4))
            width = 4 * torch.Size(shape[1:]).numel()
        norm = [BATCH_NORMS[axes](first.weight.shape[0])] if batch_norm else []
        for layer in norm:
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
        layers = [first, *norm, nn.ReLU(), DROPOUTS[axes](p), second, nn.ReLU(), DROPOUTS[axes](p), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(width, 3))
    return Case(network.eval(), shape)


def _id(parameters: tuple[int, bool]) -> str:
    return f"dropout{parameters[0] or ''}{'-batchnorm' if parameters[1] else ''}"


@pytest.fixture(params=CASES, ids=_id)
def case(request: pytest.FixtureRequest) -> Case:
    """Every kind of dropout, with and without BatchNorm."""
    return _build(*request.param)


@pytest.fixture(scope="session", params=CASES, ids=_id)
def drawn(request: pytest.FixtureRequest) -> tuple[Case, Committee]:
    """The same with a committee of 8; tests only ask it."""
    case = _build(*request.param)
    return case, case.committee()


@pytest.fixture
def build() -> Callable[..., Case]:
    """A case of one's own: ``build(axes, batch_norm, p)``."""
    return _build


@dataclass(frozen=True)
class Trained:
    """A classifier trained on three overlapping classes, and outputs about rows it never saw."""

    network: nn.Module
    committee: Committee
    tap: FeatureTap
    train: DeterministicPass
    train_labels_N: Tensor
    select: Outputs
    held_out: Outputs
    held_out_labels_N: Tensor

    def outputs(self, x: Tensor) -> Outputs:
        with torch.inference_mode():
            return Outputs(self.deterministic(x), self.committee(x).softmax(-1))

    def deterministic(self, x: Tensor) -> DeterministicPass:
        with torch.inference_mode():
            # A hidden layer stands for a block: there is nothing to pool.
            return replace(self.tap.read(x), blocks={Block("1", -1): self.network[:2](x)})


def _draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels_N = torch.randint(3, (rows,), generator=generator)
    centres = torch.tensor([[2.0, 0, 0, 1, 0, 0], [0, 2.0, 0, 0, 1, 0], [0, 0, 2.0, 0, 0, 1]])
    return centres[labels_N] + torch.randn(rows, 6, generator=generator), labels_N


@pytest.fixture(scope="session")
def trained() -> Trained:
    """Trained once; tests only read it."""
    generator = torch.Generator().manual_seed(7)
    x, labels_N = _draw(1500, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        body = [nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.3)]
        network = nn.Sequential(*body, nn.Linear(16, 3))
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x), labels_N).backward()
            optimiser.step()
    network.eval().requires_grad_(False)
    half = Trained(
        network,
        Committee(network, x[:1], num_samples=16),
        FeatureTap(network, x[:1]),
        *([None] * 5),  # type: ignore[arg-type]
    )
    held_out, held_out_labels_N = _draw(12_000, generator)
    return Trained(
        half.network,
        half.committee,
        half.tap,
        half.deterministic(x),
        labels_N,
        half.outputs(_draw(400, generator)[0]),
        half.outputs(held_out),
        held_out_labels_N,
    )


@pytest.fixture
def keeps() -> Callable[[Committee], list[Tensor]]:
    """Which units each member keeps, as zeros and ones, one ``[K, *site.shape]`` a site."""
    return lambda committee: [
        keep.float() for keep in masks.draw(committee.sites, committee.num_samples, committee.seed)
    ]


@pytest.fixture
def distributed_alike() -> Callable[[Tensor, Tensor], None]:
    """Compares two samples ``[draws, C]``: means and standard deviations lie within 4.5 standard errors."""

    def moments(logits_KC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        draws = len(logits_KC)
        mean_C, var_C = logits_KC.mean(0), logits_KC.var(0, correction=0)
        fourth_C = (logits_KC - mean_C).pow(4).mean(0)
        # Delta method: Var(std) = Var(var) / (4 var).
        return mean_C, var_C.sqrt(), var_C / draws, (fourth_C - var_C**2) / draws / (4 * var_C)

    def compare(ours_KC: Tensor, theirs_KC: Tensor) -> None:
        mean, std, mean_error, std_error = moments(ours_KC.double())
        due_mean, due_std, due_mean_error, due_std_error = moments(theirs_KC.double())
        assert bool((due_std > 0).all())
        assert ((mean - due_mean) / (mean_error + due_mean_error).sqrt()).abs().max() < 4.5
        assert ((std - due_std) / (std_error + due_std_error).sqrt()).abs().max() < 4.5

    return compare


@pytest.fixture
def in_training() -> Callable[[nn.Module, Tensor, int], Tensor]:
    """Torch's own dropout: logits ``[draws, C]`` of a copy in train mode for one row ``[1, ...]``."""

    def sample(network: nn.Module, x: Tensor, draws: int) -> Tensor:
        network = copy.deepcopy(network).train()
        torch.manual_seed(5)
        with torch.no_grad():
            return network(x.repeat(draws, *[1] * (x.ndim - 1)))

    return sample
