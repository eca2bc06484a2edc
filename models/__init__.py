"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dubio.models.ensemble import Ensemble
    from dubio.models.inputs.spec import InputSpec
    from dubio.models.loading import load, save
    from dubio.models.networks.convnet import ConvNet
    from dubio.models.networks.dropconnect import DropConnectLinear, DropConnectMLP
    from dubio.models.networks.dropout import DirectDropout, LockedDropout
    from dubio.models.networks.mlp import MLP
    from dubio.models.networks.recurrent import RecurrentNet
    from dubio.models.networks.resnet import ResNet
    from dubio.models.networks.text_cnn import TextCNN
    from dubio.models.networks.timm_net import TimmNet
    from dubio.models.networks.transformer import TransformerNet
    from dubio.models.prediction import AUTO, Prediction, Samples, Work
    from dubio.models.predictor import Predictor
    from dubio.models.spec import NetworkSpec, Provenance, Temperature

__all__ = [
    "AUTO",
    "MLP",
    "ConvNet",
    "DirectDropout",
    "DropConnectLinear",
    "DropConnectMLP",
    "Ensemble",
    "InputSpec",
    "LockedDropout",
    "NetworkSpec",
    "Prediction",
    "Predictor",
    "Provenance",
    "RecurrentNet",
    "ResNet",
    "Samples",
    "Temperature",
    "TextCNN",
    "TimmNet",
    "TransformerNet",
    "Work",
    "load",
    "save",
]

# Upon first use: help and mistakes on a command line are told without torch and Lightning.
_HOMES = {
    "AUTO": "prediction",
    "ConvNet": "networks.convnet",
    "DirectDropout": "networks.dropout",
    "DropConnectLinear": "networks.dropconnect",
    "DropConnectMLP": "networks.dropconnect",
    "Ensemble": "ensemble",
    "InputSpec": "inputs.spec",
    "LockedDropout": "networks.dropout",
    "MLP": "networks.mlp",
    "NetworkSpec": "spec",
    "Prediction": "prediction",
    "Predictor": "predictor",
    "Provenance": "spec",
    "RecurrentNet": "networks.recurrent",
    "ResNet": "networks.resnet",
    "Samples": "prediction",
    "Temperature": "spec",
    "TextCNN": "networks.text_cnn",
    "TimmNet": "networks.timm_net",
    "TransformerNet": "networks.transformer",
    "Work": "prediction",
    "load": "loading",
    "save": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dubio.models' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"dubio.models.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
