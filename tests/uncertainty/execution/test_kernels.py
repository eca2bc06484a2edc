"""Kernels: what torch's own functions give, whichever library computes it."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dubio.uncertainty.execution import kernels
from dubio.uncertainty.execution.chain import Conv, Linear
from dubio.uncertainty.execution.grouped import GroupedLinear
from dubio.uncertainty.execution.timing import Clocks

ONEDNN = (True, False)


@pytest.fixture(params=ONEDNN, ids=["oneDNN", "plain"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(kernels, "has_onednn", lambda weight: False)
    return request.param


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _close(actual: Tensor, expected: Tensor) -> None:
    """Held against double precision."""
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(rows, relu, bias):
    weight, bias_O, x = _random(7, 13), _random(7) if bias else None, _random(rows, 13)
    expected = F.linear(x, weight, bias_O)
    with torch.inference_mode():
        call = kernels.linear(Linear(weight.float(), None if bias_O is None else bias_O.float(), relu))
        _close(call(x.float()), expected.relu() if relu else expected)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_conv(rows, relu, bias):
    weight, bias_O, x = _random(5, 3, 3, 2), _random(5) if bias else None, _random(rows, 3, 9, 8)
    expected = F.conv2d(x, weight, bias_O, (2, 1), (1, 0), (1, 2))
    with torch.inference_mode():
        plain = None if bias_O is None else bias_O.float()
        call = kernels.conv(Conv(weight.float(), plain, (2, 1), (1, 0), (1, 2), (9, 8), relu))
        _close(call(x.float()), expected.relu() if relu else expected)


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_members_linear(rows, relu, members):
    weight, bias, x = _random(members, 7, 13), _random(members, 7), _random(rows, members, 13)
    expected = torch.einsum("koi,bki->bko", weight, x) + bias
    with torch.inference_mode():
        call = kernels.members_linear(weight.float(), bias.float(), relu)
        # What comes from another such layer, and what was cut out of something larger.
        for layout in (x.float(), x.float().transpose(0, 1).contiguous().transpose(0, 1)):
            _close(call(layout), expected.relu() if relu else expected)


def test_without_time_members_are_a_plain_product_and_what_was_found_out_holds():
    weight, bias = torch.zeros(3, 7, 13), torch.zeros(3, 7)
    with torch.inference_mode():
        assert not isinstance(kernels.members_linear(weight, bias, False, end=0.0), GroupedLinear)
        assert not isinstance(kernels.members_linear(weight, bias, False, grouped=False), GroupedLinear)
        again = kernels.members_linear(weight, bias, False, grouped=True)
    assert isinstance(again, GroupedLinear) == kernels.has_onednn(weight)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_what_is_switched_off_is_not_used(library):
    weight = torch.zeros(3, 7, 13)
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        assert kernels.missing_onednn(weight) == "oneDNN is switched off, by torch.backends.mkldnn"
        assert library is False or not kernels.has_onednn(weight)


def test_fast_linear_layers_of_any_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.Linear(7, 3, bias=False)).eval()
    for shape in ((4, 5), (2, 3, 5), (5,)):
        x = _random(*shape)
        expected = F.linear(
            F.gelu(F.linear(x, network[0].weight.double(), network[0].bias.double())), network[2].weight.double()
        )
        with torch.inference_mode(), kernels.OneDNNLinear():
            _close(network(x.float()), expected)
    with torch.inference_mode(), kernels.OneDNNLinear():
        torch.testing.assert_close(network.double()(x), expected)


@pytest.mark.parametrize("faster", [0.5, 2.0])
@pytest.mark.parametrize("relu", [False, True])
def test_of_two_linear_kernels_the_clearly_faster_is_kept_alone(faster, relu, library, monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda old, new, shapes, end: faster)
    weight, bias = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.ones(5)
    x = torch.randn(9, 7, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        kernel = kernels.linear(Linear(weight, bias, relu), rows=(1, 8))
        held = weakref.ref(weight)
        expected = x @ weight.T + 1
        torch.testing.assert_close(kernel(x), expected.relu() if relu else expected, rtol=1e-5, atol=1e-5)
        del weight
        # torch's own product reads the network's weights, oneDNN's a copy.
        assert (held() is not None) == (faster > 1 or not library)


def test_a_clock_that_tells_no_time_favours_neither(monkeypatch):
    monkeypatch.setattr(kernels, "Clocks", SimpleNamespace(of=lambda device: Clocks(lambda: 0.0, lambda: 0.0)))
    assert kernels.speedup(torch.relu, torch.neg, [(2, 3)], math.inf) == 1.0


def test_without_time_or_rows_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda *_: pytest.fail("compared"))
    with torch.inference_mode():
        for rows, end in (((), math.inf), ((1,), 0.0)):
            kernels.linear(Linear(torch.ones(5, 7), None), rows, end)
