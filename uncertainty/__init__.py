"""The heart of Dubio: MC dropout without switching modes, and flags that keep a promise. Pure torch."""

from __future__ import annotations

from dubio.uncertainty.committee import Committee
from dubio.uncertainty.detection.adaptive import AdaptiveSampling
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.detector import Detector
from dubio.uncertainty.detection.feature_tap import FeatureTap
from dubio.uncertainty.detection.martingale import FlagEProcess, PValueEProcess
from dubio.uncertainty.detection.outputs import DeterministicPass, Outputs
from dubio.uncertainty.dropout.sites import Site

__all__ = [
    "AdaptiveSampling",
    "Calibration",
    "Committee",
    "Detector",
    "DeterministicPass",
    "FeatureTap",
    "FlagEProcess",
    "Outputs",
    "PValueEProcess",
    "Site",
]
