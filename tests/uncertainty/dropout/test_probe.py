"""What one pass shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.uncertainty.dropout.probe import SiteRecorder


def _record(network: nn.Module, x: Tensor) -> SiteRecorder:
    recorder = SiteRecorder(network)
    with torch.inference_mode(), recorder:
        network.eval()(x)
    return recorder


class Net(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.function = nn.Dropout(0.0), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def test_a_pass_is_the_plain_one_and_calls_with_no_rate_are_seen():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Dropout(0.0)).eval()
    x, recorder = torch.randn(2, 4), SiteRecorder(network)
    with torch.inference_mode():
        plain = network(x)
        with recorder:
            assert torch.equal(network(x), plain)
    assert [(each.name, each.p) for each in recorder.calls] == [("1", 0.5), ("2", 0.0)]
    # Masks are only drawn where there is a rate.
    assert recorder.mask_numel == 8


def test_channels_need_one_number_each():
    network = nn.Sequential(nn.Dropout2d(0.5), nn.Dropout(0.5))
    assert _record(network, torch.zeros(1, 3, 4, 4)).mask_numel == 3 + 48


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda self, x: x if x.sum() > 0 else -x, True),
        (lambda self, x: x * x.sum().item(), True),
        (lambda self, x: x * len(x.tolist()), True),
        (lambda self, x: x * float(np.asarray(x).max()), True),
        (lambda self, x: x if len(x) > 1 else x[:1], False),
        (lambda self, x: torch.where(x > 0, x, -x), False),
    ],
)
def test_values_that_leave_torch_are_noticed(function, expected):
    assert _record(Net(function), torch.ones(2, 3)).value_dependent is expected


def test_randomness_is_noticed_unless_it_has_a_generator_of_its_own():
    assert _record(Net(lambda self, x: x + torch.rand(3)), torch.ones(2, 3)).random == [("Net", "rand")]
    own = Net(lambda self, x: x + torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert _record(own, torch.ones(2, 3)).random == []


def test_what_attention_weights_take_is_measured():
    network = Net(lambda self, x: F.scaled_dot_product_attention(x, x, x))
    assert _record(network, torch.ones(1, 100, 2)).largest_output == 100 * 100 * 4


def test_poisoned_calls_show_what_depends_on_them():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).eval()
    with torch.inference_mode(), SiteRecorder(network, frozenset({"0"})):
        assert network(torch.ones(1, 3)).isnan().all()
