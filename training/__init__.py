"""Training: data modules, the Lightning module, calibration and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dubio.models import lazy

if TYPE_CHECKING:
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

_HOMES = {
    "Arrays": "data.arrays",
    "CLINC150": "data.clinc150",
    "CalibrationSettings": "calibration",
    "Classifier": "classifier",
    "Digits": "data.digits",
    "FashionMNIST": "data.mnist",
    "ImageFolder": "data.image_folder",
    "MNIST": "data.mnist",
    "MaxNorm": "callbacks.max_norm",
    "Synthetic": "data.synthetic",
    "Table": "data.tabular",
    "TensorDataModule": "data.module",
    "Text": "data.text",
    "TrainingError": "errors",
    "WarmupCosine": "lr_schedule",
    "calibrate": "calibration",
}

__getattr__, __dir__ = lazy.attributes(__name__, _HOMES)
