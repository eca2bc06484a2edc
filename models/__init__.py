"""Networks, their specs, and the safe way from a checkpoint to a predictor. No Lightning, no FastAPI."""

from __future__ import annotations

from models.convnet import ConvNet
from models.ensemble import Ensemble
from models.loading import load, save
from models.mlp import MLP
from models.prediction import AUTO, Prediction, Samples, Work
from models.predictor import Predictor
from models.spec import InputSpec, NetworkSpec, Provenance, Temperature

__all__ = [
    "AUTO",
    "MLP",
    "ConvNet",
    "Ensemble",
    "InputSpec",
    "NetworkSpec",
    "Prediction",
    "Predictor",
    "Provenance",
    "Samples",
    "Temperature",
    "Work",
    "load",
    "save",
]
