from __future__ import annotations

import pytest
import torch
from torch import nn

from dubio.models import ConvNet

BLOCK = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout2d"]


def _of(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if type(module) is kind]


def test_default_architecture_has_three_blocks_with_spatial_dropout_and_a_dense_layer():
    network = ConvNet()
    blocks, rest = network.body[:3], network.body[3:]
    assert [[type(layer).__name__ for layer in block] for block in blocks] == [BLOCK] * 3
    assert [type(layer).__name__ for layer in rest] == ["Flatten", "Linear", "ReLU", "Dropout"]
    convolutions = _of(network, nn.Conv2d)
    widths = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    assert widths == [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    assert {(layer.kernel_size, layer.padding, layer.bias) for layer in convolutions} == {((3, 3), (1, 1), None)}
    assert [layer.num_features for layer in _of(network, nn.BatchNorm2d)] == [64, 64, 128, 128, 256, 256]
    assert [layer.p for layer in _of(network, nn.Dropout2d)] == [0.2, 0.3, 0.4]
    assert [layer.p for layer in _of(network, nn.Dropout)] == [0.5]
    dense = [(layer.in_features, layer.out_features) for layer in _of(network, nn.Linear)]
    assert dense == [(256 * 3 * 3, 512), (512, 10)]
    assert _of(network, nn.Linear)[-1] is network.head


def test_default_network_has_as_many_parameters_as_its_layers_say():
    convolutions = 9 * (1 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)
    norms = 2 * (64 + 64 + 128 + 128 + 256 + 256)
    dense = 2304 * 512 + 512 + 512 * 10 + 10
    counted = sum(parameter.numel() for parameter in ConvNet().parameters())
    assert counted == convolutions + norms + dense == 2_330_442


def test_images_of_odd_size_and_several_channels_give_one_logit_a_class():
    network = ConvNet(in_channels=3, image_size=9, widths=(4, 6), rates=(0.1, 0.1), dense=5, num_classes=7).eval()
    assert network(torch.zeros(2, 3, 9, 9)).shape == (2, 7)


def test_in_eval_mode_an_image_is_answered_alike_whatever_shares_its_batch():
    network = ConvNet(image_size=8, widths=(4,), rates=(0.5,), dense=5).eval()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "`in_channels`"),
        ({"image_size": -28}, "`image_size`"),
        ({"widths": ()}, "`widths`"),
        ({"dense": 0}, "`dense`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"rates": (0.2, 0.3)}, "`rates` to have one rate for each of 3 layers"),
        ({"dense_rate": 2}, "`dense_rate` to be numbers"),
        ({"image_size": 7}, "`image_size` to be at least 8 for 3 blocks"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)
