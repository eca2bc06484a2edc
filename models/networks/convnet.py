"""Convolutional network with spatial dropout."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes


class ConvNet(nn.Module):
    """Blocks of two 3x3 convolutions with spatial dropout, then a dense layer with dropout (Tompson 2015).

    A block is twice (convolution, BatchNorm, ReLU), then a 2x2 max-pool and Dropout2d, which drops whole channels:
    neighbouring pixels are so alike that dropping single ones removes nothing.

    Args:
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels.
        widths: Channels of each block; each block halves height and width.
        rates: Spatial dropout rate after each block, one a block.
        dense: Units of the dense layer.
        dense_rate: Dropout rate after the dense layer.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], there is not one rate a block, or the image is too
            small for that many blocks.
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
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, image_size=image_size, widths=widths, dense=dense, num_classes=num_classes)
        check_rates(layers=len(widths), rates=rates)
        check_rates(dense_rate=dense_rate)
        pooled = image_size >> len(widths)
        if pooled < 1:
            raise ValueError(
                f"Expected `image_size` to be at least {2 ** len(widths)} for {len(widths)} blocks, each of which "
                f"halves it, but got {image_size}; use fewer `widths`."
            )
        blocks = [
            _block(incoming, width, rate)
            for incoming, width, rate in zip([in_channels, *widths], widths, rates, strict=False)
        ]
        self.body = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(widths[-1] * pooled**2, dense), nn.ReLU(), nn.Dropout(dense_rate)
        )
        self.head = nn.Linear(dense, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of images ``[B, in_channels, image_size, image_size]``."""
        logits_BC: Tensor = self.head(self.body(x))
        return logits_BC


def _block(incoming: int, width: int, rate: float) -> nn.Sequential:
    # BatchNorm follows, so a bias of the convolution would be subtracted again.
    return nn.Sequential(
        nn.Conv2d(incoming, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(rate),
    )
