"""Training: data modules, the Lightning module, calibration and the command line."""

from __future__ import annotations

from training.arrays import Arrays
from training.calibration import CalibrationSettings, calibrate
from training.classifier import Classifier
from training.data import TensorDataModule
from training.digits import Digits
from training.errors import TrainingError
from training.fashion_mnist import FashionMNIST
from training.max_norm import MaxNorm
from training.schedules import WarmupCosine

__all__ = [
    "Arrays",
    "CalibrationSettings",
    "Classifier",
    "Digits",
    "FashionMNIST",
    "MaxNorm",
    "TensorDataModule",
    "TrainingError",
    "WarmupCosine",
    "calibrate",
]
