"""The heart of Dubio: MC dropout without switching modes, and flags that keep a promise. Pure torch."""

from __future__ import annotations

from uncertainty.committee import Committee
from uncertainty.detection.adaptive import Stopping
from uncertainty.detection.conformal import Calibration
from uncertainty.detection.detector import Detector
from uncertainty.detection.features import FeatureTap
from uncertainty.detection.outputs import DeterministicPass, Evidence
from uncertainty.dropout.sites import Site

__all__ = ["Calibration", "Committee", "Detector", "DeterministicPass", "Evidence", "FeatureTap", "Site", "Stopping"]
