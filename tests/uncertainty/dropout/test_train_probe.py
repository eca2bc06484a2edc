"""What only train mode shows is found, and finding it leaves no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.dropout.selection import Selection
from dubio.uncertainty.dropout.train_probe import probe_train_mode
from dubio.uncertainty.errors import NoDropoutFound, UnsupportedSite


class Net(nn.Module):
    """Linear, a function of one's own, linear."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(6, 8), inner or nn.Identity(), nn.Linear(8, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.first(x)))


def _only_in_training(self: nn.Module, h: Tensor) -> Tensor:
    h = F.dropout(h, 0.2, self.training)
    return self.inner(h) if self.training else h


def test_dropout_that_is_only_called_in_train_mode_is_refused_by_name():
    network = Net(_only_in_training, nn.Dropout(0.4)).eval()
    with pytest.raises(UnsupportedSite, match=r"site 'inner' \(dropout, p=0.4\) is only called in train mode"):
        audit(network, torch.randn(1, 6))
    # Whoever leaves it out knows of it.
    assert [site.name for site in audit(network, torch.randn(1, 6), Selection(sites=("Net",))).sites] == ["Net"]


class Auxiliary(nn.Module):
    """As in GoogLeNet: a second head that only helps in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)
        self.aux = nn.Sequential(nn.Dropout(0.7), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = self.body(x)
        logits = self.head(self.drop(h))
        return (logits, self.aux(h)) if self.training else logits


def test_dropout_in_an_auxiliary_head_is_none_of_our_business():
    assert [site.name for site in audit(Auxiliary().eval(), torch.randn(1, 6)).sites] == ["drop"]


class DropPath(nn.Module):
    """Stochastic depth as timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(0.9) / 0.9


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.drop, self.drop_path = nn.Dropout(0.1), DropPath()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.drop(self.fc2(self.drop(self.fc1(self.norm(x)).relu()))))


def test_stochastic_depth_is_left_off_and_said():
    network = nn.Sequential(nn.Linear(6, 8), nn.Sequential(Block(), Block()), nn.Linear(8, 3)).eval()
    plan = audit(network, torch.randn(1, 6))
    assert [site.name for site in plan.sites] == ["1.0.drop", "1.0.drop#2", "1.1.drop", "1.1.drop#2"]
    assert plan.notes[0] == "1.0.drop_path calls bernoulli_ in train mode, which is no dropout site and is left off."
    with pytest.raises(NoDropoutFound, match=r"no dropout site with p > 0.*calls bernoulli_ in train mode"):
        audit(nn.Sequential(nn.Linear(6, 3), DropPath()).eval(), torch.randn(1, 6))


def test_a_rate_is_found_although_blocks_are_skipped_at_random():
    class Skipping(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and random.random() < 0.5:
                return x
            return F.dropout(x, 0.3 if self.training else 0.0)

    random.seed(1)
    network = nn.Sequential(nn.Linear(6, 8), Skipping(), Skipping(), nn.Linear(8, 3)).eval()
    assert [site.p for site in audit(network, torch.randn(1, 6)).sites] == [0.3, 0.3]


def test_the_probe_leaves_no_trace():
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Block(), nn.Linear(8, 3)).eval()
    before = copy.deepcopy(network.state_dict())
    states = random.getstate(), torch.get_rng_state()
    probed = probe_train_mode(network, torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), {})
    assert probed.rates == {"2.drop": 0.1, "2.drop#2": 0.1}
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_a_network_that_fails_in_train_mode_is_judged_by_eval_mode_alone():
    def fails(self: nn.Module, h: Tensor) -> Tensor:
        if self.training:
            raise KeyError("no labels")
        return F.dropout(h, 0.5, self.training)

    plan = audit(Net(fails).eval(), torch.randn(1, 6))
    assert len(plan.sites) == 1
    assert "a copy of the network failed: KeyError: 'no labels'" in plan.notes[0]
