"""Training: data modules, the Lightning module, calibration and the command line."""

from __future__ import annotations

from training.calibration import CalibrationSettings, calibrate
from training.callbacks.max_norm import MaxNorm
from training.classifier import Classifier
from training.data.arrays import Arrays
from training.data.clinc150 import CLINC150
from training.data.digits import Digits
from training.data.image_folder import ImageFolder
from training.data.mnist import MNIST, FashionMNIST
from training.data.module import TensorDataModule
from training.data.synthetic import Synthetic
from training.data.tabular import Table
from training.data.text import Text
from training.errors import TrainingError
from training.lr_schedule import WarmupCosine

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
