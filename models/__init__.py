"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

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
