"""What is watched for drift: a version of a model, as far as the law of its flags and p-values depends on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dubio.models import Ensemble, Predictor
from dubio.serving.repository.registry import ServedModel
from dubio.uncertainty.detection.conformal import Calibration, JointCalibration


@dataclass(frozen=True)
class Subject:
    """A version of a model that makes a promise.

    Attributes:
        model: Its name.
        version: Its version.
        checkpoint: SHA-256 over the weights, the members and the calibration scores.
        alpha: The promised rate of flags.
        delta: Probability, over the draw of the calibration rows, that the promise does not hold.
        rows: Calibration rows; None for an ensemble, for whose p-values no law is known.
        calibrations: How many promises there are: asking as many members as it takes has one of its own.
    """

    model: str
    version: str
    checkpoint: str
    alpha: float
    delta: float
    rows: int | None
    calibrations: int

    @classmethod
    def of(cls, model: ServedModel) -> Subject | None:
        """What there is to watch in a model; None where it makes no promise."""
        predictor, rows = model.predictor, None
        promise: Calibration | JointCalibration | None
        if isinstance(predictor, Ensemble):
            promise = predictor.joint
        else:
            promise = calibration = predictor.detector.calibration if predictor.detector else None
            rows = len(calibration.scores_N) if calibration else None
        if promise is None:
            return None
        return cls(
            model.name,
            model.version,
            fingerprint(predictor),
            float(promise.alpha),
            float(promise.delta),
            rows,
            2 if predictor.asks_adaptively else 1,
        )

    def false_alarm(self, epsilon: float) -> float:
        """The probability of ever raising a false alarm, at most.

        That the e-value reaches 1 / epsilon has probability epsilon at most, unless for one of the calibrations the
        rate of flags is above alpha (delta) or one of the bounds on its p-values does not hold (epsilon).
        """
        return min(1.0, epsilon + self.calibrations * (self.delta + (0.0 if self.rows is None else epsilon)))


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
