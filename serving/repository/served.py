"""A model that serves."""

from __future__ import annotations

from dataclasses import dataclass

from models import Ensemble, Predictor


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A predictor that may answer requests.

    Whoever holds one may go on using it after another took its place; it goes when nobody does.
    """

    name: str
    version: str
    predictor: Predictor | Ensemble
