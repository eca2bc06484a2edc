"""Training: data modules, the Lightning module, calibration and the command line."""

from __future__ import annotations

from training.arrays import Arrays
from training.calibration import CalibrationSettings, calibrate
from training.classifier import Classifier
from training.clinc150 import CLINC150
from training.data import TensorDataModule
from training.digits import Digits
from training.errors import TrainingError
from training.fashion_mnist import FashionMNIST
from training.image_folder import ImageFolder
from training.max_norm import MaxNorm
from training.mnist import MNIST
from training.schedules import WarmupCosine
from training.synthetic import Synthetic
from training.table import Table
from training.text import Text

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
