"""Transformer encoder with dropout on the attention and behind each sub-layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.arguments import check_rates, check_sizes


class TransformerNet(nn.Module):
    """A transformer encoder over the rows of an input (Vaswani 2017), their mean, and a linear head.

    Each row is projected to the width and gets a learned position. Layers normalise before each sub-layer (Xiong 2020),
    which trains without a warm-up.

    Args:
        features: numbers in each row.
        length: rows of an input, at most.
        width: of the representation.
        layers: encoder layers.
        heads: attention heads; their number divides the width.
        feedforward: units between the two linear layers of a sub-layer.
        rate: dropout rate, on attention weights and behind each sub-layer.
        head_rate: dropout rate before the head.
        num_classes: C.

    Raises:
        ValueError: a size is not positive, a rate not in [0, 1], or the heads do not divide the width.
    """

    def __init__(
        self,
        features: int = 28,
        length: int = 28,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        feedforward: int = 256,
        rate: float = 0.1,
        head_rate: float = 0.1,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        sizes = {"features": features, "length": length, "width": width, "layers": layers, "heads": heads}
        check_sizes(**{name: [size] for name, size in sizes.items()})
        check_sizes(feedforward=[feedforward], num_classes=[num_classes])
        check_rates([rate], layers=1, name="rate")
        check_rates([head_rate], layers=1, name="head_rate")
        if width % heads:
            raise ValueError(f"Expected `heads` to divide `width`, but {heads} does not divide {width}.")
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, rate, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.drop = nn.Dropout(head_rate)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of sequences ``[B, L, features]``, or of the rows of images ``[B, channels, H, W]``."""
        rows_BLF = x.flatten(1, -2)
        encoded_BLW = self.encoder(self.embed(rows_BLF) + self.position[: rows_BLF.shape[1]])
        logits_BC: Tensor = self.head(self.drop(encoded_BLW.mean(1)))
        return logits_BC
