"""Any architecture of the library timm, with dropout and a head behind it."""

from __future__ import annotations

import importlib
from functools import partial
from types import ModuleType

from torch import Tensor, nn

from dubio.models.networks.validation import check_rates, check_sizes


class TimmNet(nn.Module):
    """An image network of timm (Wightman 2019), by default with dropout and a linear head in place of its classifier.

    The library is needed: `pip install timm`. Nothing is ever downloaded: the weights come from training or from a
    checkpoint.

    Args:
        architecture: A name of `timm.list_models()`, such as ``resnet18`` or ``vit_tiny_patch16_224``.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels, for architectures that are built for one size.
        attention_rate: Dropout rate on attention weights, for architectures that have attention.
        projection_rate: Dropout rate behind each sub-layer, for the same ones.
        depth_rate: Rate at which whole blocks are skipped in training (Huang 2016); no dropout site.
        head_rate: Dropout rate before the head.
        num_classes: C.
        own_head: Whether the classifier is the architecture's own, as in weights that were trained with timm, with
            `head_rate` as its rate (`drop_rate`).

    Raises:
        ValueError: If a size is not positive, a rate not in [0, 1], or timm has no such architecture.
        ModuleNotFoundError: If timm is not installed.
        TypeError: If the architecture does not have what an argument asks for.
    """

    def __init__(
        self,
        architecture: str = "resnet18",
        in_channels: int = 3,
        image_size: int | None = None,
        attention_rate: float = 0.0,
        projection_rate: float = 0.0,
        depth_rate: float = 0.0,
        head_rate: float = 0.3,
        num_classes: int = 10,
        own_head: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            in_channels=in_channels, num_classes=num_classes, image_size=1 if image_size is None else image_size
        )
        check_rates(
            attention_rate=attention_rate, projection_rate=projection_rate, depth_rate=depth_rate, head_rate=head_rate
        )
        rates = {"attn_drop_rate": attention_rate, "proj_drop_rate": projection_rate, "drop_path_rate": depth_rate}
        timm = _timm()
        # Only what timm itself defines: it would download the networks that other names stand for.
        if not timm.is_model(architecture) or ":" in architecture:
            raise ValueError(f"Expected `architecture` to be one of timm.list_models(), but got {architecture!r:.80}.")
        # An architecture need not know an argument that asks for nothing.
        asked = {name: rate for name, rate in rates.items() if rate > 0}
        if image_size is not None:
            asked["img_size"] = image_size
        create = partial(timm.create_model, architecture, pretrained=False, in_chans=in_channels, **asked)
        if own_head:
            self.body = create(num_classes=num_classes, drop_rate=head_rate)
            self.drop: nn.Module = nn.Identity()
            self.head: nn.Module = nn.Identity()
            return
        self.body = create(num_classes=0)
        self.drop = nn.Dropout(head_rate)
        # Some architectures widen their features once more before the classifier.
        self.head = nn.Linear(getattr(self.body, "head_hidden_size", None) or self.body.num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, C]`` of images ``[B, in_channels, H, W]``."""
        logits_BC: Tensor = self.head(self.drop(self.body(x)))
        return logits_BC


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected the library timm, which has the architectures of dubio.models.TimmNet, but it is not installed; "
            "run `pip install timm`."
        ) from error
