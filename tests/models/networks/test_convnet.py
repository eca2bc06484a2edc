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


def test_blocks_may_differ_in_depth_and_norm_layer_for_layer():
    """The classic of spatial dropout: two convolutions with BatchNorm, twice; one without; rates 0.2, 0.3, 0.4, 0.5."""
    network = ConvNet(depths=(2, 2, 1), norm=(True, True, False))
    plain = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout2d(0.2),
        nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Conv2d(128, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout2d(0.3),
        nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout2d(0.4),
        nn.Flatten(), nn.Linear(256 * 3 * 3, 512), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(512, 10),
    )  # fmt: skip
    layers = [layer for layer in network.modules() if not isinstance(layer, ConvNet | nn.Sequential)]
    assert [repr(layer) for layer in layers] == [repr(layer) for layer in plain]
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x), rtol=0, atol=0)
    outputs = []
    for each in (network.train(), plain.train()):  # the same masks at the same places, and the same running statistics
        with torch.random.fork_rng():
            torch.manual_seed(1)
            outputs.append(each(x))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_one_depth_and_one_norm_are_for_all_blocks():
    network = ConvNet(image_size=8, widths=(4, 6), rates=(0.1, 0.1), dense=5, depths=3, norm=False)
    assert [(layer.in_channels, layer.out_channels) for layer in _of(network, nn.Conv2d)] == [
        (1, 4), (4, 4), (4, 4), (4, 6), (6, 6), (6, 6)
    ]  # fmt: skip
    assert all(layer.bias is not None for layer in _of(network, nn.Conv2d))
    assert not _of(network, nn.BatchNorm2d)


def test_the_default_draws_the_weights_that_it_always_drew():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = ConvNet(image_size=8, widths=(2, 3), rates=(0.1, 0.1), dense=4, num_classes=2).state_dict()
        torch.manual_seed(0)
        drawn = [nn.Conv2d(*channels, 3, bias=False) for channels in ((1, 2), (2, 2), (2, 3), (3, 3))]
        dense, head = nn.Linear(3 * 2 * 2, 4), nn.Linear(4, 2)
    names = ("body.0.0.weight", "body.0.3.weight", "body.1.0.weight", "body.1.3.weight")
    for name, layer in zip(names, drawn, strict=True):
        torch.testing.assert_close(weights[name], layer.weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(weights["body.3.weight"], dense.weight.detach(), rtol=0, atol=0)
    torch.testing.assert_close(weights["head.bias"], head.bias.detach(), rtol=0, atol=0)


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
        ({"depths": (2, 0, 1)}, "`depths` to be at least one positive integer"),
        ({"depths": (2, 1)}, "`depths` to have one value for each of 3 blocks"),
        ({"norm": (True, False)}, "`norm` to have one value for each of 3 blocks"),
        ({"dense_rate": 2}, "`dense_rate` to be numbers"),
        ({"image_size": 7}, "`image_size` to be at least 8 for 3 blocks"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)
