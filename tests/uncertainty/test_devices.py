"""The committee on every device of this machine, against the committee on the CPU, whose masks are the same."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from dubio.models import MLP, ConvNet, RecurrentNet, ResNet, TransformerNet
from dubio.uncertainty import FeatureTap
from dubio.uncertainty.execution.tolerance import tolerance
from tests.quick import quick_committee

K = 8
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]
NETWORKS = {
    "mlp": (lambda: MLP(in_features=12, widths=(40, 30), rates=(0.5, 0.3), num_classes=4), (12,)),
    "convnet": (lambda: ConvNet(image_size=8, widths=(8, 16), rates=(0.2, 0.3), dense=32, num_classes=4), (1, 8, 8)),
    "resnet": (
        lambda: ResNet(in_channels=1, widths=(8, 16), blocks=1, num_classes=4),
        (1, 8, 8),
    ),
    "recurrent": (lambda: RecurrentNet(features=6, width=16, num_classes=4), (5, 6)),
    "transformer": (
        lambda: TransformerNet(features=6, length=5, width=16, layers=2, heads=2, feedforward=32, num_classes=4),
        (5, 6),
    ),
}


def _network(name: str) -> tuple[nn.Module, Tensor]:
    build, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build().eval().requires_grad_(False)
    return network, torch.randn((40, *shape), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_members_answer_as_the_loop_on_the_cpu_does(name, device):
    network, x = _network(name)
    plain = quick_committee(network, x[:1], num_samples=K, strategy="loop")
    there = quick_committee(copy.deepcopy(network).to(device), x[:1].to(device), num_samples=K)
    assert there.fingerprint == plain.fingerprint
    for rows in (1, 3, 40):
        expected = plain(x[:rows])
        logits_KBC = there(x[:rows].to(device))
        assert logits_KBC.device.type == device
        allowed = tolerance(logits_KBC)
        torch.testing.assert_close(logits_KBC.cpu(), expected, rtol=allowed, atol=allowed * float(expected.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_deterministic_answers_keep_every_bit_beside_members(name, device):
    network, x = _network(name)
    network, x = network.to(device), x.to(device)
    before = network(x)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    tap, committee = FeatureTap(network, x[:1]), quick_committee(network, x[:1], num_samples=K)
    with ThreadPoolExecutor(4) as threads:
        members = [threads.submit(committee, x) for _ in range(8)]
        answers = [threads.submit(tap, x) for _ in range(8)]
        assert all(torch.equal(answer.result()[0], before) for answer in answers)
        first, *others = (each.result() for each in members)
        assert all(torch.allclose(first, other, atol=1e-5) for other in others)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_is_answered_within_its_rounding(device):
    network, x = _network("mlp")
    exact = quick_committee(network, x[:1], num_samples=K, strategy="loop")(x)
    coarse = copy.deepcopy(network).to(device, torch.bfloat16)
    there = quick_committee(coarse, x[:1].to(device, torch.bfloat16), num_samples=K)
    logits_KBC = there(x.to(device, torch.bfloat16))
    assert logits_KBC.dtype == torch.bfloat16
    allowed = tolerance(logits_KBC) * float(exact.abs().max().clamp(min=1))
    assert float((logits_KBC.cpu().float() - exact).abs().max()) < 2 * allowed
