"""A network of two linear layers and a function of one's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Net(nn.Module):
    """Two linear layers and a function of one's own between input and logits."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor], p: float = 0.5) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(6, 16), nn.Dropout(p), nn.Linear(16, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.between(self, x)
