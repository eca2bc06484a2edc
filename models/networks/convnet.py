"""Convolutional network with spatial dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes

T = TypeVar("T")


class ConvNet(nn.Module):
    """Blocks of 3x3 convolutions with spatial dropout, then a dense layer with dropout (Tompson 2015).

    A block is as often as `depths` says (convolution, BatchNorm, ReLU), then a 2x2 max-pool and Dropout2d, which drops
    whole channels: neighbouring pixels are so alike that dropping single ones removes nothing.

    Args:
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        widths: Channels of each block; each block halves height and width.
        rates: Spatial dropout rate after each block, one a block.
        dense: Units of the dense layer.
        dense_rate: Dropout rate after the dense layer.
        num_classes: C.
        depths: Convolutions of each block, one number a block or one for all.
        norm: Whether BatchNorm follows each convolution of a block, one a block or one for all; without it, the
            convolutions have a bias.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], there is not one rate, depth or norm a block, or
            the image is too small for that many blocks.
    """

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = (64, 128, 256),
        rates: Sequence[float] = (0.2, 0.3, 0.4),
        dense: int = 512,
        dense_rate: float = 0.5,
        num_classes: int = 10,
        depths: int | Sequence[int] = 2,
        norm: bool | Sequence[bool] = True,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, image_size=image_size, widths=widths, dense=dense, num_classes=num_classes)
        check_sizes(depths=depths)
        depths, norm = _each("depths", depths, len(widths)), _each("norm", norm, len(widths))
        check_rates(layers=len(widths), rates=rates)
        check_rates(dense_rate=dense_rate)
        pooled = image_size >> len(widths)
        if pooled < 1:
            raise ValueError(
                f"Expected `image_size` to be at least {2 ** len(widths)} for {len(widths)} blocks, each of which "
                f"halves it, but got {image_size}; use fewer `widths`."
            )
        blocks = [
            _block(*sizes) for sizes in zip([in_channels, *widths[:-1]], widths, depths, norm, rates, strict=True)
        ]
        self.body = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(widths[-1] * pooled**2, dense), nn.ReLU(), nn.Dropout(dense_rate)
        )
        self.head = nn.Linear(dense, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of images ``[B, in_channels, image_size, image_size]``."""
        logits_BC: Tensor = self.head(self.body(x))
        return logits_BC


def _each(name: str, given: T | Sequence[T], blocks: int) -> list[T]:
    """One value a block."""
    values = list(given) if isinstance(given, Sequence) else [given] * blocks
    if len(values) != blocks:
        raise ValueError(f"Expected `{name}` to have one value for each of {blocks} blocks, but got {values}.")
    return values


def _block(incoming: int, width: int, depth: int, norm: bool, rate: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for at in range(depth):
        # Where BatchNorm follows, a bias of the convolution would be subtracted again.
        layers.append(nn.Conv2d(width if at else incoming, width, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout2d(rate))
