"""The heart of Dubio: MC dropout without switching modes, and flags that keep a promise. Pure torch."""

from __future__ import annotations

from uncertainty.committee import Committee
from uncertainty.conformal import Calibration
from uncertainty.detector import Detector
from uncertainty.evidence import DeterministicPass, Evidence
from uncertainty.features import FeatureTap
from uncertainty.slots import Site
from uncertainty.stopping import Stopping

__all__ = ["Calibration", "Committee", "Detector", "DeterministicPass", "Evidence", "FeatureTap", "Site", "Stopping"]
