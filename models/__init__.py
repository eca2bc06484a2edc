"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dubio.models import lazy

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
    from dubio.models.networks.sequence_classifier import SequenceClassifier
    from dubio.models.networks.text_cnn import TextCNN
    from dubio.models.networks.timm_net import TimmNet
    from dubio.models.networks.transformer import TransformerNet
    from dubio.models.networks.transformers_net import TransformersNet
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
    "SequenceClassifier",
    "Temperature",
    "TextCNN",
    "TimmNet",
    "TransformerNet",
    "TransformersNet",
    "Work",
    "load",
    "save",
]

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
    "SequenceClassifier": "networks.sequence_classifier",
    "Temperature": "spec",
    "TextCNN": "networks.text_cnn",
    "TimmNet": "networks.timm_net",
    "TransformerNet": "networks.transformer",
    "TransformersNet": "networks.transformers_net",
    "Work": "prediction",
    "load": "loading",
    "save": "loading",
}

__getattr__, __dir__ = lazy.attributes(__name__, _HOMES)
