from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from dubio import models, training
from dubio.training.cli import signatures
from dubio.training.trainer import Trainer


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("dubio.training.trainer.Trainer", Trainer),  # inherits its arguments
        ("pytorch_lightning.callbacks.ModelCheckpoint", ModelCheckpoint),
        ("dubio.training.callbacks.checkpoints.BestCheckpoint", ModelCheckpoint),  # has no arguments of its own
        ("dubio.training.Classifier", training.Classifier),
        ("dubio.training.CalibrationSettings", training.CalibrationSettings),  # a dataclass
        ("dubio.models.MLP", models.MLP),
        ("torch.optim.SGD", torch.optim.SGD),
        ("torch.optim.lr_scheduler.OneCycleLR", torch.optim.lr_scheduler.OneCycleLR),
    ],
)
def test_the_source_tells_what_python_tells(path: str, known: type):
    told = signatures.of(path)
    assert told is not None
    assert told.complete
    assert list(told.arguments) == [name for name in inspect.signature(known.__init__).parameters if name != "self"]


def test_what_is_passed_on_is_told_too():
    told = signatures.of("dubio.training.Table")
    assert told is not None
    assert told.complete
    assert {"path", "target", "batch_size", "seed", "calibration"} <= set(told.arguments)
    assert {"group", "time", "duplicates", "sampling", "decimal", "thousands", "missing"} <= set(told.arguments)


def test_type_default_and_docstring_are_told():
    rate = signatures.of("dubio.training.CalibrationSettings").arguments["alpha"]
    assert (rate.type, rate.default) == ("float", "0.05")
    assert rate.help
    assert signatures.of("dubio.training.trainer.Trainer", "fit").summary == "Runs the full optimization routine."


MODULE = """
class Parent:
    def __init__(self, a, b=1):
        pass

class Passes(Parent):
    def __init__(self, c, **rest):
        super().__init__(a=2, **rest)

class Keeps:
    def __init__(self, c, **rest):
        self.rest = rest
"""


def test_what_goes_where_the_source_does_not_say_is_not_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "signed_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    passes, keeps = signatures.of("signed_module.Passes"), signatures.of("signed_module.Keeps")
    assert (set(passes.arguments), passes.complete) == ({"b", "c"}, True)
    assert (set(keeps.arguments), keeps.complete) == ({"c"}, False)
    assert signatures.of("signed_module.Nobody") is None
    assert signatures.of("nowhere.Nobody") is None
    assert signatures.of("torch._C.Tensor") is None  # not written in Python
