"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

from models.ensemble import Ensemble
from models.inputs.spec import InputSpec
from models.loading import load, save
from models.networks.convnet import ConvNet
from models.networks.dropconnect import DropConnectLinear, DropConnectMLP
from models.networks.dropout import DirectDropout, LockedDropout
from models.networks.mlp import MLP
from models.networks.recurrent import RecurrentNet
from models.networks.resnet import ResNet
from models.networks.text_cnn import TextCNN
from models.networks.timm_net import TimmNet
from models.networks.transformer import TransformerNet
from models.prediction import AUTO, Prediction, Samples, Work
from models.predictor import Predictor
from models.spec import NetworkSpec, Provenance, Temperature

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
