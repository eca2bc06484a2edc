"""Networks that are chains and networks that are not, with inputs, and the plain loop over their members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models import MLP, ConvNet
from dubio.uncertainty.dropout.audit import SamplingPlan, audit
from dubio.uncertainty.execution import chain, masked, masks, strategies
from dubio.uncertainty.execution.batched import prefix
from dubio.uncertainty.execution.fallback import Fallbacks, Strategy
from dubio.uncertainty.execution.kernels import Kernel
from dubio.uncertainty.execution.timing import TimeBudget

K = 7


class Net(nn.Module):
    """A function of layers and input."""

    def __init__(self, run: Callable[[nn.ModuleList, Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.layers, x)


def _conv(*layers: nn.Module, out: int) -> nn.Sequential:
    """Some layers over 2 x 9 x 8 images, and a head behind a flattening."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(out, 4))


# Every chain that can be thinned.
THINNABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(in_features=12, widths=(40, 30, 20), num_classes=4, rates=(0.5, 0.4, 0.3)), (12,)),
    "one site before the head": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.GELU(), nn.Dropout(0.2), nn.Linear(30, 4)),
        (12,),
    ),
    "dropout on the input": (
        lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 4)),
        (12,),
    ),
    "no bias": (
        lambda: nn.Sequential(
            nn.Linear(12, 30, bias=False),
            nn.Dropout(0.5),
            nn.Linear(30, 20, bias=False),
            nn.SiLU(),
            nn.Dropout(0.5),
            nn.Linear(20, 4, bias=False),
        ),
        (12,),
    ),
    "two linear layers without a site between": (
        lambda: nn.Sequential(
            nn.Linear(12, 30),
            nn.Dropout(0.5),
            nn.Linear(30, 20),
            nn.Sigmoid(),
            nn.Linear(20, 25),
            nn.ReLU(inplace=True),
            nn.LeakyReLU(0.3),
            nn.Dropout(0.6, inplace=True),
            nn.Linear(25, 4),
        ),
        (12,),
    ),
    "relu behind the site": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.ReLU(), nn.Linear(30, 4)),
        (12,),
    ),
    "a site that drops everything": (
        lambda: nn.Sequential(
            nn.Linear(12, 30), nn.Dropout(1.0), nn.Linear(30, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 4)
        ),
        (12,),
    ),
    "a site of rate 0": (
        lambda: nn.Sequential(
            nn.Linear(12, 30), nn.Dropout(0.5), nn.Linear(30, 20), nn.Dropout(0.0), nn.ReLU(), nn.Linear(20, 4)
        ),
        (12,),
    ),
    "batch norm between linear layers": (
        lambda: nn.Sequential(
            nn.Linear(12, 30),
            nn.Dropout(0.5),
            nn.Linear(30, 20),
            nn.BatchNorm1d(20),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(20, 4),
        ),
        (12,),
    ),
    "batch norm behind an activation": (
        lambda: nn.Sequential(
            nn.Linear(12, 30),
            nn.Dropout(0.5),
            nn.Linear(30, 20),
            nn.ReLU(),
            nn.BatchNorm1d(20),
            nn.Linear(20, 4),
        ),
        (12,),
    ),
    "layer norm between sites": (
        lambda: nn.Sequential(
            nn.Linear(12, 30),
            nn.Dropout(0.5),
            nn.Linear(30, 20),
            nn.LayerNorm(20),
            nn.Dropout(0.4),
            nn.Linear(20, 4),
        ),
        (12,),
    ),
    "a skip connection before the first site": (
        lambda: Net(
            lambda layers, x: layers[3](layers[2](x + layers[1](layers[0](x)))),
            nn.Linear(12, 20),
            nn.Linear(20, 12),
            nn.Dropout(0.5),
            nn.Linear(12, 4),
        ),
        (12,),
    ),
    "the network of the models": (
        lambda: ConvNet(2, image_size=8, widths=(6, 10), rates=(0.3, 0.4), dense=20, num_classes=4),
        (2, 8, 8),
    ),
    "padding, stride and dilation": (
        lambda: _conv(
            nn.Conv2d(2, 8, 3, padding=(2, 1)),
            nn.Dropout2d(0.4),
            nn.Conv2d(8, 9, (3, 2), stride=(2, 1), padding=1, bias=False),
            nn.BatchNorm2d(9),
            nn.GELU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(9, 6, 2, dilation=2),
            nn.ReLU(),
            out=6 * 4 * 7,
        ),
        (2, 9, 8),
    ),
    "spatial dropout on the input": (
        lambda: _conv(nn.Dropout2d(0.4), nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Dropout2d(0.4), out=6 * 7 * 6),
        (2, 9, 8),
    ),
    "pools": (
        lambda: _conv(
            nn.Conv2d(2, 8, 3),
            nn.Dropout2d(0.4),
            nn.MaxPool2d(2, stride=1, padding=1, ceil_mode=True),
            nn.Conv2d(8, 9, 1),
            nn.AvgPool2d(2, padding=1, count_include_pad=False),
            nn.Dropout2d(0.5),
            nn.AdaptiveAvgPool2d((3, 2)),
            out=9 * 6,
        ),
        (2, 9, 8),
    ),
    "global pooling": (
        lambda: Net(
            lambda layers, x: layers[4](layers[3](layers[2](layers[1](layers[0](x))).mean((2, 3)))),
            nn.Conv2d(2, 8, 3),
            nn.Dropout2d(0.4),
            nn.Conv2d(8, 9, 3),
            nn.Dropout(0.3),
            nn.Linear(9, 4),
        ),
        (2, 9, 8),
    ),
    "dropout behind a flattening": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3),
            nn.Dropout2d(0.4),
            nn.Conv2d(8, 5, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.4),
            nn.Linear(5 * 5 * 4, 4),
        ),
        (2, 9, 8),
    ),
    "a function behind the flattening": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.Dropout2d(0.4), nn.Flatten(), nn.ReLU(), nn.Linear(8 * 7 * 6, 4)),
        (2, 9, 8),
    ),
    "view by the size of the batch": (
        lambda: Net(
            lambda layers, x: layers[2](F.relu(layers[1](layers[0](x))).view(x.size(0), -1)),
            nn.Conv2d(2, 8, 3),
            nn.Dropout2d(0.4),
            nn.Linear(8 * 7 * 6, 4),
        ),
        (2, 9, 8),
    ),
    "a channel each": (
        lambda: _conv(nn.Conv2d(2, 3, 3), nn.Dropout2d(0.9), nn.Conv2d(3, 5, 3), nn.Dropout2d(0.9), out=5 * 5 * 4),
        (2, 9, 8),
    ),
}

# Chains in which a site stands where units cannot be left out.
NOT_THINNABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer norm behind a site": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.LayerNorm(30), nn.Linear(30, 4)),
        (12,),
    ),
    "batch norm behind a site": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.BatchNorm1d(30), nn.Linear(30, 4)),
        (12,),
    ),
    "an activation behind a site that moves zero": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.Sigmoid(), nn.Linear(30, 4)),
        (12,),
    ),
    "an activation behind a site that bends": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.Tanh(), nn.Linear(30, 4)),
        (12,),
    ),
    "dropout at the end": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.Linear(30, 4), nn.Dropout(0.1)),
        (12,),
    ),
    "two sites in a row": (
        lambda: nn.Sequential(nn.Linear(12, 30), nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(30, 4)),
        (12,),
    ),
    "single pixels dropped": (
        lambda: _conv(nn.Conv2d(2, 8, 3), nn.Dropout(0.4), nn.Conv2d(8, 6, 3), out=6 * 5 * 4),
        (2, 9, 8),
    ),
    "grouped convolution behind a site": (
        lambda: _conv(nn.Conv2d(2, 8, 3), nn.Dropout2d(0.4), nn.Conv2d(8, 8, 3, groups=4), out=8 * 5 * 4),
        (2, 9, 8),
    ),
    "group norm behind a site": (
        lambda: _conv(nn.Conv2d(2, 8, 3), nn.Dropout2d(0.4), nn.GroupNorm(2, 8), out=8 * 7 * 6),
        (2, 9, 8),
    ),
}


def _unchained(run: Callable[[nn.ModuleList, Tensor], Tensor]) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """Two layers of 12 units with a site between them, and a head, connected by a function."""
    return lambda: Net(run, nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 12), nn.Linear(12, 4)), (12,)


def _skip(layers: nn.ModuleList, x: Tensor) -> Tensor:
    h = layers[1](layers[0](x))
    return layers[3](h + layers[2](h))


def _skip_over_the_site(layers: nn.ModuleList, x: Tensor) -> Tensor:
    h = layers[0](x)
    return layers[3](h + layers[2](layers[1](h)))


def _read_again(layers: nn.ModuleList, x: Tensor) -> Tensor:
    h = layers[1](layers[0](x))
    layers[2](h)
    return layers[3](h)


# No chains: something reads what is not just before it, or is unknown.
NO_CHAINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "skip connection": _unchained(_skip),
    "skip over the first site": _unchained(_skip_over_the_site),
    "a tensor that is read again": _unchained(_read_again),
    "something behind the head": _unchained(lambda layers, x: 2 * layers[3](layers[1](layers[0](x)))),
    "softmax": _unchained(lambda layers, x: layers[3](layers[1](layers[0](x)).softmax(-1))),
    "a gate": _unchained(lambda layers, x: layers[3](layers[1](layers[0](x)) * layers[2](x))),
    "a bias by hand": _unchained(lambda layers, x: layers[1](layers[0](x)) @ layers[3].weight.T + layers[3].bias),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(12, 30), nn.AlphaDropout(0.5), nn.Linear(30, 4)), (12,)),
    "steps of a sequence": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 4)),
        (4, 3),
    ),
}

CHAINS = THINNABLE | NOT_THINNABLE
ALL_MEMBERS = slice(0, K)


@dataclass(frozen=True)
class Built:
    """A network with its plan and frozen members."""

    network: nn.Module
    shape: tuple[int, ...]
    plan: SamplingPlan
    banks: list[Tensor]

    def chain(self) -> chain.Chain:
        with torch.inference_mode():
            return chain.record(self.plan, self.inputs(2))

    def prefix(self) -> Kernel:
        return prefix(self.chain(), self.plan)

    def inputs(self, rows: int) -> Tensor:
        x = torch.randn(rows, *self.shape, generator=torch.Generator().manual_seed(rows))
        return x.to(next(self.network.parameters()))

    def loop(self, x: Tensor) -> Tensor:
        """What the plain loop over the members gives, ``[K, B, C]``."""
        return masked.loop(self.plan, x, self.banks)


def built(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Built:
    """Build, give BatchNorm statistics that are not at their start, and draw members."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build().eval().to(dtype)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    network.to(device)
    plan = audit(network, torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).to(device, dtype))
    return Built(network, shape, plan, banks_of(plan, K, device))


def banks_of(plan: SamplingPlan, num_samples: int, device: str | torch.device = "cpu") -> list[Tensor]:
    """Scaled masks, ``[K, *site.shape]`` a site."""
    keeps = masks.draw(plan.sites, num_samples, seed=3)
    return [
        masks.scale(keep, site.p, plan.dtype, torch.device(device), site.kind)
        for keep, site in zip(keeps, plan.sites, strict=True)
    ]


def strategies_of(case: Built, num_samples: int = K) -> dict[str, Strategy]:
    """Every strategy that agrees with the loop, by name."""
    row = case.inputs(1)
    banks = banks_of(case.plan, num_samples, row.device)
    with torch.inference_mode():
        return strategies.build(case.plan, banks, row, 2**28, TimeBudget(20.0), Fallbacks())
