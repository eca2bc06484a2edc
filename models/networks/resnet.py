"""Residual network with dropout inside its blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes


class ResNet(nn.Module):
    """Pre-activation residual network (He 2016) with spatial dropout between a block's convolutions (Zagoruyko 2016).

    A 3x3 convolution, then stages of blocks; each stage but the first halves height and width. A block adds to its
    input twice (BatchNorm, ReLU, convolution), with Dropout2d before the second convolution. A stage's first block,
    which changes the shape, brings its input into the new one by a 1x1 convolution.

    Args:
        in_channels: Channels of an image.
        widths: Channels of each stage.
        blocks: Residual blocks of each stage.
        rate: Spatial dropout rate within the blocks.
        head_rate: Dropout rate before the head.
        num_classes: C.

    Raises:
        ValueError: If a size is not positive, or a rate not in [0, 1].
    """

    def __init__(
        self,
        in_channels: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        rate: float = 0.2,
        head_rate: float = 0.3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, widths=widths, blocks=blocks, num_classes=num_classes)
        check_rates(rate=rate, head_rate=head_rate)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)]
        incoming = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(incoming, width, stride=2 if stage and not block else 1, rate=rate))
                incoming = width
        layers += [nn.BatchNorm2d(incoming), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(head_rate)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(incoming, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of images ``[B, in_channels, H, W]``."""
        logits_BC: Tensor = self.head(self.body(x))
        return logits_BC


class Block(nn.Module):
    """One residual block; see `ResNet`.

    Args:
        incoming: Channels of the input.
        width: Channels of the output.
        stride: Of the first convolution.
        rate: Spatial dropout rate before the second one.
    """

    def __init__(self, incoming: int, width: int, stride: int, rate: float) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(incoming), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(incoming, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout2d(rate),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        same = incoming == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(incoming, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, incoming, H, W]`` to ``[B, width, H / stride, W / stride]``."""
        activated = self.before(x)
        kept = x if self.shortcut is None else self.shortcut(activated)
        output: Tensor = kept + self.residual(activated)
        return output
