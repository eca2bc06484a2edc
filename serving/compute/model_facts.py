"""What is known of a model without asking it: all that requests are read by, answers are written by, and cards tell."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from dubio.models import Ensemble, InputSpec, Predictor
from dubio.uncertainty.detection.conformal import Calibration, JointCalibration


@dataclass(frozen=True)
class FlagPromise:
    """What bounds the share of familiar inputs that are flagged.

    Attributes:
        alpha: The promised rate.
        delta: Probability, over the draw of the calibration rows, that it does not hold.
        rows: Calibration rows; None for an ensemble, for whose p-values no law is known.
    """

    alpha: float
    delta: float
    rows: int | None

    @classmethod
    def of(cls, promise: Calibration | JointCalibration) -> FlagPromise:
        """The same without the scores."""
        rows = len(promise.scores_N) if isinstance(promise, Calibration) else None
        return cls(float(promise.alpha), float(promise.delta), rows)


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """A model as plain data, which another process can be told.

    Attributes:
        input: What one input is.
        classes: Names, in the order of the probabilities.
        num_samples: Members of its committee, or of all its committees.
        example: An input to try it with, and where it comes from.
        card: What `Predictor.describe` says.
        promise: About its flags; None where nothing is promised.
        no_promise: Why nothing is; None where something is.
        asks_adaptively: Whether ``samples`` may be ``"auto"``.
        fingerprint: SHA-256 over the weights, the members and the calibration scores.
    """

    input: InputSpec
    classes: tuple[str, ...]
    num_samples: int
    example: tuple[Any, str]
    card: dict[str, Any]
    promise: FlagPromise | None
    no_promise: str | None
    asks_adaptively: bool
    fingerprint: str

    @classmethod
    def of(cls, predictor: Predictor | Ensemble) -> ModelFacts:
        """All about this model."""
        promise = predictor.flag_promise
        return cls(
            predictor.input,
            predictor.classes,
            predictor.committee.num_samples,
            predictor.example,
            predictor.describe(),
            None if promise is None else FlagPromise.of(promise),
            predictor.no_promise,
            predictor.asks_adaptively,
            fingerprint(predictor),
        )


def fingerprint(predictor: Predictor | Ensemble) -> str:
    """SHA-256 over the weights, the members and the calibration scores: what labels, flags and p-values depend on."""
    digest = hashlib.sha256()
    for part in predictor.predictors if isinstance(predictor, Ensemble) else (predictor,):
        weights = part.provenance.weights_sha256 if part.provenance else ""
        digest.update(f"{weights} {part.committee.fingerprint}".encode())
        for rule in (part.detector, part.stopping):
            if rule is not None and rule.calibration is not None:
                scores = rule.calibration.scores_N.cpu().numpy()
                digest.update(f" {rule.calibration.level} ".encode() + scores.tobytes())
    return digest.hexdigest()
