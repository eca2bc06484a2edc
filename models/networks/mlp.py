"""Multi-layer perceptron with a dropout rate for each hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes


class MLP(nn.Module):
    """Linear, ReLU and dropout for each hidden layer, then a linear head (Srivastava 2014).

    Args:
        in_features: Numbers in one input, whatever its shape; the input is flattened.
        widths: Units of each hidden layer.
        num_classes: C.
        rates: Dropout rate after each hidden layer, one a layer.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], or there is not one rate a layer.
    """

    def __init__(
        self,
        in_features: int = 784,
        widths: Sequence[int] = (512, 256, 128),
        num_classes: int = 10,
        rates: Sequence[float] = (0.5, 0.4, 0.3),
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, widths=widths, num_classes=num_classes)
        check_rates(layers=len(widths), rates=rates)
        layers: list[nn.Module] = [nn.Flatten()]
        for incoming, width, rate in zip([in_features, *widths], widths, rates, strict=False):
            layers += [nn.Linear(incoming, width), nn.ReLU(), nn.Dropout(rate)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of inputs ``[B, ...]`` with ``in_features`` numbers a row."""
        logits_BC: Tensor = self.head(self.body(x))
        return logits_BC
