"""What is watched for drift: a version of a model, as far as the law of its flags and p-values depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from dubio.serving.repository.registry import ServedModel


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
        facts = model.facts
        promise = facts.promise
        if promise is None:
            return None
        calibrations = 2 if facts.asks_adaptively else 1
        identity = (model.name, model.version, facts.fingerprint)
        return cls(*identity, promise.alpha, promise.delta, promise.rows, calibrations)

    def false_alarm(self, epsilon: float) -> float:
        """The probability of ever raising a false alarm, at most.

        That the e-value reaches 1 / epsilon has probability epsilon at most, unless for one of the calibrations the
        rate of flags is above alpha (delta) or one of the bounds on its p-values does not hold (epsilon).
        """
        return min(1.0, epsilon + self.calibrations * (self.delta + (0.0 if self.rows is None else epsilon)))
