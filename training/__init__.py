"""Training: data modules, the Lightning module, calibration and the command line."""

from __future__ import annotations

from dubio.training.calibration import CalibrationSettings, calibrate
from dubio.training.callbacks.max_norm import MaxNorm
from dubio.training.classifier import Classifier
from dubio.training.data.arrays import Arrays
from dubio.training.data.clinc150 import CLINC150
from dubio.training.data.digits import Digits
from dubio.training.data.image_folder import ImageFolder
from dubio.training.data.mnist import MNIST, FashionMNIST
from dubio.training.data.module import TensorDataModule
from dubio.training.data.synthetic import Synthetic
from dubio.training.data.tabular import Table
from dubio.training.data.text import Text
from dubio.training.errors import TrainingError
from dubio.training.lr_schedule import WarmupCosine

__all__ = [
    "CLINC150",
    "MNIST",
    "Arrays",
    "CalibrationSettings",
    "Classifier",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "MaxNorm",
    "Synthetic",
    "Table",
    "TensorDataModule",
    "Text",
    "TrainingError",
    "WarmupCosine",
    "calibrate",
]
