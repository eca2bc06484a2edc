from __future__ import annotations

import gc
import importlib
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from dubio.models import MLP, ConvNet, NetworkSpec, TransformerNet, registry
from dubio.models.errors import ModelError
from dubio.models.registry import NETWORKS
from dubio.uncertainty import Committee, FeatureTap
from dubio.uncertainty.dropout.audit import audit
from dubio.uncertainty.execution import fx_trace
from tests.models.networks.transformers_models import BERT

SMALL: dict[str, Any] = {"in_features": 4, "widths": [3], "num_classes": 2, "rates": [0.5]}

USER_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=3, **more):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.drop(self.first(x.flatten(1)).relu()))

class Broken(nn.Module):
    def __init__(self):
        raise KeyError("broken")

def function():
    raise AssertionError("must not be called")

class NoModule:
    pass
"""


def _spec(class_path: str = "dubio.models.MLP", **init_args: Any) -> NetworkSpec:
    return NetworkSpec(class_path=class_path, init_args=init_args)


def _weights(**init_args: Any) -> dict[str, torch.Tensor]:
    return MLP(**init_args).state_dict()


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package `acme` with networks, and another whose name begins alike."""
    for package in ("acme", "acmeevil"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "nets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').close()\n" + USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "acme"
    for name in [name for name in sys.modules if name.startswith("acme")]:
        del sys.modules[name]


def test_the_registry_names_its_own_classes_by_short_names():
    assert [registry.class_path(MLP), registry.class_path(ConvNet)] == ["dubio.models.MLP", "dubio.models.ConvNet"]
    assert registry.class_path(nn.Linear) == "torch.nn.modules.linear.Linear"


def test_a_network_is_built_with_its_weights_in_eval_mode_and_without_gradients():
    weights = _weights(**SMALL)
    network = registry.build(_spec(**SMALL), weights)
    assert type(network) is MLP
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_network_shares_no_memory_with_the_weights_it_was_built_from():
    weights = _weights(**SMALL)
    network = registry.build(_spec(**SMALL), weights)
    weights["head.bias"].detach().fill_(7.0)
    assert not (network.head.bias == 7.0).any()


def test_building_leaves_the_global_random_state_alone():
    weights = _weights(**SMALL)
    before = torch.get_rng_state()
    registry.build(_spec(**SMALL), weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "torch.nn.Linear",
        "dubio.models.networks.mlp.MLP",
        "MLP",
        "dubio.models.MLPs",
        "acme.nets.Net",
        "antigravity.Net",
    ],
)
def test_an_unknown_class_is_refused_and_nothing_is_imported(class_path: str, acme: str, tmp_path: Path):
    with pytest.raises(ModelError, match="neither in the registry"):
        registry.build(_spec(class_path), {})
    assert "antigravity" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_a_class_path_of_before_is_told_with_the_one_of_now():
    with pytest.raises(ModelError, match=r"is 'models\.MLP', which is 'dubio\.models\.MLP' now; .* calibrate"):
        registry.build(_spec("models.MLP"), {})


def test_a_class_of_a_trusted_module_is_built(acme: str):
    for trusted in (("acme",), ("other", "acme.nets")):
        spec = _spec("acme.nets.Net", width=5)
        network = registry.build(spec, importlib.import_module("acme.nets").Net(width=5).state_dict(), trusted)
        assert network.first.out_features == 5
        assert registry.class_path(type(network)) == "acme.nets.Net"


@pytest.mark.parametrize("trusted", [("acme",), ("acme.",), ("acme.nets.Net",), ("",), ("acmeevil.nets.sub",)])
def test_trust_ends_at_a_dot(trusted: tuple[str, ...], acme: str, tmp_path: Path):
    with pytest.raises(ModelError, match="neither in the registry"):
        registry.build(_spec("acmeevil.nets.Net"), {}, trusted)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["function", "NoModule", "torch", "absent"])
def test_what_is_no_network_is_refused_even_from_a_trusted_module(name: str, acme: str):
    with pytest.raises(ModelError, match=r"not a torch\.nn\.Module class"):
        registry.build(_spec(f"acme.nets.{name}"), {}, ("acme",))


def test_a_trusted_module_that_is_not_installed_is_refused(acme: str):
    with pytest.raises(ModelError, match=r"'acme\.missing\.Net', whose module cannot be imported"):
        registry.build(_spec("acme.missing.Net"), {}, ("acme",))


def test_a_trusted_class_that_cannot_be_built_is_refused(acme: str):
    with pytest.raises(ModelError, match=r"do not build acme\.nets\.Broken.*broken"):
        registry.build(_spec("acme.nets.Broken"), {}, ("acme",))


@pytest.mark.parametrize(
    ("init_args", "message"),
    [
        ({**SMALL, "surprise": 1, "extra": 2}, r"unknown keys \['extra', 'surprise'\]; dubio.models.MLP takes"),
        ({**SMALL, "widths": [0]}, "`widths`"),
        ({**SMALL, "widths": "wide"}, "do not build dubio.models.MLP"),
        ({**SMALL, "widths": None}, "do not build dubio.models.MLP"),
        ({**SMALL, "widths": [3.5]}, "do not build dubio.models.MLP"),
        ({**SMALL, "rates": ["a"]}, "do not build dubio.models.MLP"),
        ({**SMALL, "in_features": 2**62}, "do not build dubio.models.MLP"),
        ({**SMALL, "in_features": 2**40}, r"'body.1.weight' should be torch.float32 \[3, 1099511627776\]"),
        ({**SMALL, "widths": [2**40]}, "do not fit the network"),
        ({**SMALL, "widths": [3, 3], "rates": [0.5, 0.5]}, "'body.4.bias' should be .*the file has none"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_allocated(init_args: dict[str, Any], message: str):
    with pytest.raises(ModelError, match=message):
        registry.build(_spec(**init_args), _weights(**SMALL))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_type_are_refused(dtype: torch.dtype):
    weights = _weights(**SMALL)
    weights["head.bias"] = weights["head.bias"].detach().to(dtype)
    with pytest.raises(ModelError, match=f"'head.bias' should be torch.float32 .* the file has {dtype}"):
        registry.build(_spec(**SMALL), weights)


def test_weights_too_many_are_refused():
    with pytest.raises(ModelError, match="'zzz' should be absent"):
        registry.build(_spec(**SMALL), {**_weights(**SMALL), "zzz": torch.zeros(1)})


def test_an_outline_takes_no_memory():
    outline = registry.outline(_spec(**SMALL), _weights(**SMALL))
    assert {parameter.device.type for parameter in outline.parameters()} == {"meta"}
    assert not outline.training


TINY: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "MLP": ({"in_features": 6, "widths": [5], "rates": [0.5]}, (6,)),
    "ConvNet": ({"image_size": 8, "widths": [4], "rates": [0.2], "dense": 8}, (1, 8, 8)),
    "ResNet": ({"widths": [4, 6], "blocks": 1}, (1, 8, 8)),
    "RecurrentNet": ({"features": 8, "width": 6}, (5, 8)),
    "TransformerNet": ({"features": 8, "length": 5, "width": 8, "layers": 1, "heads": 2, "feedforward": 16}, (5, 8)),
    "DropConnectMLP": ({"in_features": 6, "widths": [5], "rates": [0.5]}, (6,)),
    "TextCNN": ({"vocabulary": 9, "features": 6, "width": 5}, (5,)),
    "TransformersNet": ({"config": BERT}, (5,)),
    "TimmNet": ({"architecture": "resnet10t", "in_channels": 1}, (1, 32, 32)),
}


@pytest.fixture(scope="module")
def traced_before() -> None:
    """The first trace imports parts of torch that leave an exception behind, and with it whoever asked."""
    network = MLP(in_features=4, widths=[3], rates=[0.5]).eval()
    plan = audit(network, torch.zeros(1, 4))
    with torch.inference_mode():
        fx_trace.trace(plan, torch.zeros(1, 4), [torch.ones(2, 3)])


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize("name", [path.rpartition(".")[2] for path in NETWORKS])
@pytest.mark.parametrize("wanted", [None, "traced", "loop"])
def test_the_last_who_uses_a_network_takes_it_along(name: str, wanted: str | None):
    """No reference cycle holds the parameters: the collector may come late, or have been told to pass them over."""
    if name == "TimmNet":
        pytest.importorskip("timm")
    arguments, shape = TINY[name]
    torch.manual_seed(0)  # units that are all dead would drop nothing
    network = NETWORKS[f"dubio.models.{name}"](**arguments, num_classes=3).eval().requires_grad_(False)
    x = torch.arange(5).expand(1, -1) if name in {"TextCNN", "TransformersNet"} else torch.randn(1, *shape)
    held = [weakref.ref(tensor) for tensor in (*network.parameters(), *network.buffers())]
    strategy = None if wanted == "traced" and name in {"MLP", "ConvNet"} else wanted  # chains are not traced
    gc.disable()
    try:
        committee = Committee(network, x, 4, measure_seconds=0.3, strategy=strategy)
        tap = FeatureTap(network, x)
        assert committee(x).shape == (4, 1, 3)
        assert tap(x)[0].shape == (1, 3)
        del committee, tap, network
        assert [each() for each in held if each() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "init_args"),
    [
        ("TransformerNet", {"layers": 150_000_000, "width": 4, "heads": 1, "feedforward": 4}),
        ("RecurrentNet", {"layers": 150_000_000, "width": 1}),
        ("RecurrentNet", {"layers": 2**62, "width": 1, "bidirectional": True}),
        ("ResNet", {"widths": [1, 1], "blocks": 150_000_000}),
        ("ConvNet", {"widths": [1], "rates": [0.1], "depths": 150_000_000}),
        ("ConvNet", {"widths": [1], "rates": [0.1], "depths": [2**62], "norm": False}),
    ],
)
def test_sizes_are_compared_with_the_weights_before_anything_is_looped_over(name: str, init_args: dict[str, Any]):
    weights = MLP(in_features=4, widths=[4], num_classes=2, rates=[0.5]).state_dict()
    before = psutil.Process().memory_info().rss
    with pytest.raises(ModelError, match=r"need more weights than the file has, takes more than"):
        registry.outline(NetworkSpec(class_path=f"dubio.models.{name}", init_args=init_args), weights)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_what_a_network_computes_beside_its_weights_is_bounded():
    spec = NetworkSpec(class_path="dubio.models.TransformerNet", init_args={"positions": "sinusoidal", "layers": 1})
    weights = TransformerNet(positions="sinusoidal", layers=1).state_dict()
    registry.outline(spec, weights)
    larger = NetworkSpec(class_path=spec.class_path, init_args={**spec.init_args, "length": 2**20})
    with pytest.raises(ModelError, match=r"position'\] would take 536870912 bytes that the file does not hold"):
        registry.outline(larger, weights)


def test_a_network_of_more_tensors_than_any_has_is_refused():
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args={})
    weights = {str(number): torch.zeros(1) for number in range(registry.MAX_TENSORS + 1)}
    with pytest.raises(ModelError, match="8193 tensors; at most 8192 are allowed"):
        registry.outline(spec, weights)
