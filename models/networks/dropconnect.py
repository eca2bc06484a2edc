"""DropConnect: connections are dropped instead of units."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes


class DropConnectLinear(nn.Linear):
    """A linear layer that drops single weights; the others grow by 1 / (1 - rate) (Wan 2013).

    In training one mask serves the whole batch, as drawing one an example would take a weight matrix for each.

    Args:
        in_features: Of the input.
        out_features: Of the output.
        rate: Share of the weights that is dropped.
        bias: Whether there is one; it is not dropped.
    """

    def __init__(self, in_features: int, out_features: int, rate: float = 0.5, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        check_rates(rate=rate)
        self.rate = rate

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        return F.linear(input, F.dropout(self.weight, self.rate, self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rate={self.rate:g}"


class DropConnectMLP(nn.Module):
    """A multi-layer perceptron whose hidden layers drop connections.

    Args:
        in_features: Numbers in an input, whatever its shape.
        widths: Units of each hidden layer.
        rates: Share of dropped weights of each hidden layer, one a layer.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], or there is not one rate a layer.
    """

    def __init__(
        self,
        in_features: int = 784,
        widths: Sequence[int] = (512, 256),
        rates: Sequence[float] = (0.5, 0.5),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, widths=widths, num_classes=num_classes)
        check_rates(layers=len(widths), rates=rates)
        layers: list[nn.Module] = [nn.Flatten()]
        for incoming, width, rate in zip([in_features, *widths], widths, rates, strict=False):
            layers += [DropConnectLinear(incoming, width, rate), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of inputs ``[B, ...]``."""
        logits_BC: Tensor = self.head(self.body(x))
        return logits_BC
