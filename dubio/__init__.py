"""Dubio: dropout classifiers that say when they doubt. MC dropout, calibrated flags, training and serving.

A committee for a network of your own, untouched and in eval mode:

>>> import torch
>>> from dubio import Committee
>>> from torch import nn
>>> network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
>>> committee = Committee(network.eval(), torch.zeros(1, 4), num_samples=8, seed=0)
>>> logits_KBC = committee(torch.ones(2, 4))
>>> logits_KBC.shape
torch.Size([8, 2, 3])

A checkpoint that `dubio-train` wrote, and both of its answers:

>>> from dubio import load
>>> predictor = load("runs/digits_mlp/model.ckpt")
>>> prediction = predictor.predict(torch.zeros(2, 1, 8, 8))
>>> prediction.probabilities.shape, prediction.mc_mean.shape
((2, 10), (2, 10))
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dubio.models import Prediction, Predictor, load, save
    from dubio.uncertainty import Committee

__all__ = ["Committee", "Prediction", "Predictor", "load", "save"]

_FOLDER = Path(__file__).parent
if not (_FOLDER / "models").is_dir():
    __path__.append(str(_FOLDER.parent))  # an unpacked sdist, and a checkout on Windows, have no links to the folders

_HOMES = {"Committee": "uncertainty", "Prediction": "models", "Predictor": "models", "load": "models", "save": "models"}


def __getattr__(name: str) -> Any:
    # Upon first use: a command line that only shows its help, and the service's schemas, do without torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'dubio' has no attribute '{name}'")
    return getattr(import_module(f"dubio.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
