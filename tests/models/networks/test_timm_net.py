"""The wrapper around timm, with a package of that name and of the same interface."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dubio.models import InputSpec, NetworkSpec, TimmNet, load, registry
from dubio.models.errors import ModelError
from dubio.uncertainty import FeatureTap
from tests.quick import quick_committee

TIMM = """
import torch
from torch import nn

def is_model(name):
    return name.split(".")[0] in ("tiny", "wide")

class Net(nn.Module):
    num_features = 6

    def __init__(self, in_chans, num_classes, attn_drop_rate=0.0, img_size=None, drop_rate=0.0):
        super().__init__()
        self.img_size = img_size
        self.head_drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(6, num_classes) if num_classes else nn.Identity()
        self.first = nn.Conv2d(in_chans, 6, 3)
        self.drop = nn.Dropout(attn_drop_rate)

    def forward(self, x):
        return self.fc(self.head_drop(self.drop(self.first(x)).mean((2, 3))))

class Wide(Net):
    head_hidden_size = 9

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.last = nn.Linear(6, 9)

    def forward(self, x):
        return self.last(super().forward(x))

def create_model(name, pretrained, **arguments):
    assert pretrained is False
    return {"tiny": Net, "wide": Wide}[name](**arguments)
"""


@pytest.fixture
def timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("timm", None)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(("architecture", "width"), [("tiny", 6), ("wide", 9)])
def test_the_head_takes_the_features_and_is_tapped(architecture: str, width: int):
    network = TimmNet(architecture, in_channels=1, num_classes=4).eval()
    x = torch.randn(2, 1, 5, 5)
    logits, features = FeatureTap(network, x)(x)
    assert network.head.in_features == width
    torch.testing.assert_close(features, network.body(x))
    torch.testing.assert_close(logits, network.body(x) @ network.head.weight.T + network.head.bias)


@pytest.mark.usefixtures("timm")
def test_rates_and_sizes_reach_the_architecture():
    network = TimmNet("tiny", in_channels=1, image_size=5, attention_rate=0.2, head_rate=0.4, num_classes=4).eval()
    sites = quick_committee(network, torch.randn(1, 1, 5, 5), num_samples=4).sites
    assert [(site.name, site.p) for site in sites] == [("body.drop", 0.2), ("drop", 0.4)]
    assert network.body.img_size == 5


@pytest.mark.usefixtures("timm")
def test_weights_that_were_trained_with_timm_are_taken_with_their_own_head(tmp_path: Path):
    theirs = importlib.import_module("timm").create_model(
        "tiny", pretrained=False, in_chans=1, num_classes=4, drop_rate=0.3
    )
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    arguments = {"architecture": "tiny", "in_channels": 1, "num_classes": 4, "own_head": True}
    predictor = load(
        tmp_path / "model.safetensors",
        network=NetworkSpec(class_path="dubio.models.TimmNet", init_args=arguments),
        input=InputSpec(kind="image", shape=(1, 5, 5), mean=(0.0,), std=(1.0,), low=-3, high=3),
        classes=("a", "b", "c", "d"),
        num_samples=4,
        measure_seconds=0.1,
        trial=False,
    )
    x = torch.randn(3, 1, 5, 5)
    with torch.no_grad():
        due = theirs.eval()(x).softmax(-1)
    torch.testing.assert_close(torch.from_numpy(predictor.predict(x).probabilities), due)
    assert [(site.name, site.p) for site in predictor.committee.sites] == [("body.head_drop", 0.3)]
    assert predictor.tap.head == "body.fc"


@pytest.mark.usefixtures("timm")
def test_a_checkpoint_may_name_it():
    arguments = {"architecture": "tiny", "in_channels": 1, "num_classes": 4}
    network = TimmNet(**arguments).eval()
    spec = NetworkSpec(class_path=registry.class_path(TimmNet), init_args=arguments)
    x = torch.randn(2, 1, 5, 5)
    assert spec.class_path == "dubio.models.TimmNet"
    assert torch.equal(registry.build(spec, network.state_dict())(x), network(x))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"architecture": "unknown"}, ValueError, "`architecture` to be one of timm.list_models"),
        ({"architecture": "tiny.hf-hub:a"}, ValueError, "`architecture` to be one of"),
        ({"architecture": "tiny", "num_classes": 0}, ValueError, "num_classes"),
        ({"architecture": "tiny", "image_size": 0}, ValueError, "image_size"),
        ({"architecture": "tiny", "depth_rate": 2}, ValueError, "depth_rate"),
        ({"architecture": "tiny", "depth_rate": 0.1}, TypeError, "drop_path_rate"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        TimmNet(**arguments)


def test_without_the_library_the_cure_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        TimmNet()
    with pytest.raises(ModelError, match="pip install timm"):
        registry.build(NetworkSpec(class_path="dubio.models.TimmNet", init_args={}), {})
