"""A trace is exact, for its batch size, on every input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.execution import fx_trace, masked
from tests.uncertainty.chains import banks_of


def _trace_and_compare(network: nn.Module, shape: tuple[int, ...]) -> None:
    plan = audit(network, torch.randn(1, *shape))
    banks = banks_of(plan, 5)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        for batch in (1, 4):
            graph = fx_trace.trace(plan, torch.randn(batch, *shape), banks)
            for scale in (1.0, 100.0, -1.0):
                x = scale * torch.randn(batch, *shape)
                before, expected = x.clone(), masked.loop(plan, x, banks)
                first, again = graph(x), graph(x)
                tolerance = 1e-5 * float(expected.abs().max().clamp(min=1))
                torch.testing.assert_close(first, expected, rtol=1e-5, atol=tolerance)
                # Neither its input, nor the weights, nor what it computed beforehand may be overwritten by a first run.
                assert torch.equal(first, again)
                assert torch.equal(x, before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_trace_is_the_loop(case):
    _trace_and_compare(case.network, case.shape)


class Net(nn.Module):
    def __init__(self, between: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.drop, self.norm = nn.Dropout(0.5), nn.LayerNorm(8)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, self.first(x)))


def _relu_after_a_view(net: Net, h: Tensor) -> Tensor:
    view = h.view(-1, 8)
    return net.drop(F.relu(h)) + view


def _relu_in_place(net: Net, h: Tensor) -> Tensor:
    return net.second(net.drop(F.relu(net.second(net.drop(h)), inplace=True)))


def _own_product(net: Net, h: Tensor) -> Tensor:
    dropped = net.drop(net.second(h))
    return dropped * dropped


CONNECTIONS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "skip": lambda net, h: h + net.drop(h),
    "skip over relu": lambda net, h: h + net.drop(F.relu(h)),
    "activation before and after the mask": lambda net, h: F.relu(h) * 0.1 + net.second(net.drop(F.relu(h))),
    "twice masked": lambda net, h: net.drop(h) - net.drop(h),
    "mask then relu": lambda net, h: net.second(F.relu(net.drop(h))) + net.drop(h),
    "view": _relu_after_a_view,
    "in place": _relu_in_place,
    "LayerNorm": lambda net, h: net.norm(net.drop(net.second(net.norm(h)))),
    "weights shared": lambda net, h: net.second(net.drop(net.second(net.drop(net.second(h))))),
    "gate": lambda net, h: net.drop(h) * torch.sigmoid(net.second(h)),
    "own product": _own_product,
    "bare bias": lambda net, h: net.drop(h) @ net.second.weight.T + net.second.bias,
    "constant added": lambda net, h: net.drop(h) + net.second.bias + net.head.bias.sum(),
}


@pytest.mark.parametrize("between", CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_a_trace_is_the_loop_however_layers_are_connected(between):
    torch.manual_seed(0)
    _trace_and_compare(Net(between).eval(), (6,))


def test_who_calls_a_module_while_all_calls_are_traced_may_come_to_it_later():
    """As another thread does, which torch's patch of all modules meets as well."""
    patched = []

    def stashing(net: Net, h: Tensor) -> Tensor:
        patched.append(nn.Module.__call__)
        return net.drop(h)

    network = Net(stashing).eval()
    plan, x = audit(network, torch.randn(1, 6)), torch.randn(2, 6)
    with torch.inference_mode():
        fx_trace.trace(plan, x, banks_of(plan, 5))
        assert nn.Module.__call__ not in patched[-1:]
        assert torch.equal(patched[-1](network.first, x), network.first(x))


def test_a_trace_follows_the_widths_of_the_models():
    layers = [nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(0.3)]
    _trace_and_compare(nn.Sequential(*layers, nn.Linear(8, 3)).eval(), (1, 4, 4))
    blocks = [
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
    ]
    dense = [nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)]
    _trace_and_compare(nn.Sequential(*blocks, *dense).eval(), (1, 4, 4))


def test_what_nobody_else_reads_is_overwritten():
    # Behind each product come a ReLU and a mask, and neither takes memory of its own; the first mask widens one to K.
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)]
    network, x = nn.Sequential(*layers).eval(), torch.randn(4, 6)
    plan = audit(network, x)
    with torch.inference_mode():
        graph = fx_trace.trace(plan, x, banks_of(plan, 5))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            graph(x)
    ran = Counter(event.name for event in profiled.events())
    assert (ran["aten::relu_"], ran["aten::mul_"], ran["aten::mul"]) == (2, 1, 1)
    # And each product gets its bias at once.
    assert (ran["aten::addmm"], ran["aten::mm"], ran["aten::add"]) == (3, 0, 0)


@pytest.mark.parametrize(
    "exit_",
    [
        lambda h: 2.0 if h.sum() > 0 else 1.0,
        lambda h: h.max().item(),
        lambda h: h.tolist()[0][0],
        lambda h: float(h.detach().numpy().max()),
        lambda h: float(np.asarray(h.detach()).max()),
    ],
    ids=["bool", "item", "tolist", "numpy", "array"],
)
def test_a_value_that_leaves_torch_cannot_be_traced(exit_):
    network = Net(lambda net, h: net.drop(h * exit_(h))).eval()
    plan = replace(audit(Net(lambda net, h: net.drop(h)).eval(), torch.randn(2, 6)), network=network)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        fx_trace.trace(plan, torch.randn(2, 6), banks_of(plan, 5))
