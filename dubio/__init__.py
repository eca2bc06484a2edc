"""Dubio: dropout classifiers that say when they doubt. MC dropout, calibrated flags, training and serving.

>>> from dubio import Committee, load
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
