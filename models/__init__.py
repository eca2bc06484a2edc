"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

from models.backbone import TimmNet
from models.convnet import ConvNet
from models.direct import DirectDropout
from models.dropconnect import DropConnectLinear, DropConnectMLP
from models.ensemble import Ensemble
from models.input_spec import InputSpec
from models.loading import load, save
from models.locked import LockedDropout
from models.mlp import MLP
from models.prediction import AUTO, Prediction, Samples, Work
from models.predictor import Predictor
from models.recurrent import RecurrentNet
from models.resnet import ResNet
from models.spec import NetworkSpec, Provenance, Temperature
from models.text_cnn import TextCNN
from models.transformer import TransformerNet

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
