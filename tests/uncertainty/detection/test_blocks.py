"""The blocks of the shipped networks and of foreign ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dubio.models.networks.convnet import ConvNet
from dubio.models.networks.dropconnect import DropConnectMLP
from dubio.models.networks.mlp import MLP
from dubio.models.networks.recurrent import RecurrentNet
from dubio.models.networks.resnet import ResNet
from dubio.models.networks.text_cnn import TextCNN
from dubio.models.networks.transformer import TransformerNet
from dubio.models.registry import NETWORKS
from dubio.uncertainty import FeatureTap
from dubio.uncertainty.detection import blocks
from dubio.uncertainty.detection.blocks import MAX_CHANNELS, MOST_BLOCKS, Block
from dubio.uncertainty.errors import UncertaintyError

IMAGE = torch.rand(3, 1, 16, 16)
ROWS = torch.rand(3, 8, 8)
TOKENS = torch.randint(1, 50, (3, 8)).float()
CONVNET = ConvNet(image_size=16, widths=(4, 6, 8), dense=12)
RESNET = ResNet(widths=(4, 8), blocks=2)
TEXT_CNN = TextCNN(vocabulary=50, features=6, windows=(1, 2), width=5)
SHIPPED = {
    "convnet": (CONVNET, IMAGE, {"body.0": 4, "body.1": 6, "body.2": 8}),
    "resnet": (RESNET, IMAGE, {"body.0": 4, "body.1": 4, "body.2": 4, "body.3": 8, "body.6": 8}),
    "mlp": (MLP(256, widths=(8, 8), rates=(0.1, 0.1)), IMAGE, {}),
    "dropconnect": (DropConnectMLP(256, widths=(8, 8)), IMAGE, {}),
    "text cnn": (TEXT_CNN, TOKENS, {"drop_numbers": 6, "windows.0": 5, "windows.1": 5}),
    "recurrent": (
        RecurrentNet(features=8, width=6, layers=2, bidirectional=True),
        ROWS,
        {f"layers.{layer}.{way}": 6 for layer in (0, 1) for way in (0, 1)},
    ),
    # Torch runs a layer of its encoder as one kernel, and by others if somebody listens to it.
    "transformer": (TransformerNet(features=8, length=8, width=12), ROWS, {"embed": 12, "encoder": 12}),
    "transformer of tokens": (
        TransformerNet(vocabulary=50, length=8, width=12),
        TOKENS,
        {"embed": 12, "encoder": 12},
    ),
}


def _widths(network: nn.Module, x: Tensor) -> dict[str, int]:
    found = blocks.find(network.eval(), x)
    seen = FeatureTap(network, x).with_blocks(found).read(x)
    assert all(pooled_BF.shape[0] == len(x) for pooled_BF in seen.blocks.values())
    return {block.name: pooled_BF.shape[1] // 2 for block, pooled_BF in seen.blocks.items()}


@pytest.mark.parametrize(("network", "x", "due"), SHIPPED.values(), ids=SHIPPED)
@torch.inference_mode()
def test_the_blocks_of_a_shipped_network_are_these_by_their_channels(network, x, due):
    assert _widths(network, x) == due


@pytest.mark.parametrize(("network", "x", "due"), SHIPPED.values(), ids=SHIPPED)
@torch.inference_mode()
def test_listening_to_a_shipped_network_changes_no_bit(network, x, due):
    plain = network.eval()(x)
    tap = FeatureTap(network, x).with_blocks(blocks.find(network, x))
    assert torch.equal(tap.read(x).logits_BC, plain)
    assert torch.equal(network(x), plain)


def test_every_shipped_network_is_among_these():
    tested = {type(network).__name__ for network, _, _ in SHIPPED.values()}
    assert {path.rsplit(".", 1)[-1] for path in NETWORKS} - tested == {"TimmNet", "TransformersNet"}


class _Stages(nn.Module):
    """As torchvision and timm build a ResNet: stages are attributes, and each holds blocks."""

    class Basic(nn.Module):
        def __init__(self, incoming: int, width: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(incoming, width, 3, padding=1), nn.BatchNorm2d(width)
            self.conv2, self.skip = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(incoming, width, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.skip(x) + self.conv2(torch.relu(self.bn1(self.conv1(x)))))

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(*[self.Basic(4, 4) for _ in range(blocks)])
        self.layer2 = nn.Sequential(self.Basic(4, 8), *[self.Basic(8, 8) for _ in range(blocks - 1)])
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))
        return self.fc(self.avgpool(x).flatten(1))


class _Features(nn.Module):
    """As torchvision builds a VGG: one long sequence, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        convolution = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*convolution, nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(96, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class _Patches(nn.Module):
    """As timm builds a vision transformer: patches, then blocks over [B, L, C], whose mean goes to the head."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(6), nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

        def forward(self, x_BLC: Tensor) -> Tensor:
            return x_BLC + self.mlp(self.norm(x_BLC))

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 4, stride=4)
        self.blocks = nn.Sequential(*[self.Mixing() for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


FOREIGN = {
    "stages": (_Stages(), {"maxpool": 4, "layer1.0": 4, "layer1.1": 4, "layer2.0": 8, "layer2.1": 8}),
    "features": (_Features(), {"features.3": 4, "features.6": 6}),
    "patches": (_Patches(), {"patches": 6, "blocks.0": 6, "blocks.1": 6, "norm": 6}),
    "a plain sequence": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(864, 3)),
        {"1": 4, "2": 6},
    ),
}


@pytest.mark.parametrize(("network", "due"), FOREIGN.values(), ids=FOREIGN)
@torch.inference_mode()
def test_the_blocks_of_a_foreign_network_are_these_by_their_channels(network, due):
    assert _widths(network, IMAGE) == due


@torch.inference_mode()
def test_of_many_blocks_some_are_taken_from_the_first_to_the_last():
    found = blocks.find(_Stages(blocks=10).eval(), IMAGE)
    assert len(found) == MOST_BLOCKS
    assert (found[0].name, found[-1].name) == ("maxpool", "layer2.9")
    assert len({block.name for block in found}) == MOST_BLOCKS


@torch.inference_mode()
def test_blocks_of_too_many_channels_are_left_out():
    wide = nn.Conv2d(4, MAX_CHANNELS + 1, 1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), wide, nn.Conv2d(MAX_CHANNELS + 1, 2, 1), nn.Flatten(), nn.Linear(392, 3)
    )
    assert list(_widths(network, IMAGE)) == ["0", "2"]


def test_pooling_takes_mean_and_maximum_over_all_positions():
    maps = torch.randn(2, 3, 4, 5)
    due = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
    torch.testing.assert_close(Block("a", 1).pool(maps), due)
    torch.testing.assert_close(Block("a", -1).pool(maps.permute(0, 2, 3, 1)), due)
    torch.testing.assert_close(Block("a", -1).pool((maps.permute(0, 2, 3, 1), None)), due)
    assert Block("a", 1).pool(maps.bfloat16()).dtype == torch.float32


def test_looking_for_blocks_leaves_no_hook():
    network = _Stages().eval()
    blocks.find(network, IMAGE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("axis", [0, 2, -2])
def test_an_axis_that_holds_no_channels_is_refused(axis):
    with pytest.raises(UncertaintyError, match="to be 1 or -1"):
        Block("a", axis)
