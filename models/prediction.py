"""The prediction: both answers and the flag, for a batch, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dubio.models.errors import ModelError

OUT_OF_RANGE = "out_of_range"  # a raw value outside what the training split contained
NOT_CALIBRATED = "not_calibrated"
NOT_CALIBRATED_FOR_SAMPLES = "not_calibrated_for_these_samples"

# As many members as it takes, row by row; see `dubio.uncertainty.detection.adaptive`.
AUTO: Final = "auto"
"""As many members as the label and the flag of each row need."""
Samples = int | Literal["auto"] | None
"""How many members to ask: a number, `AUTO`, or None for all."""

Part = TypeVar("Part")


class Work(IntEnum):
    """How much of a prediction to compute; each includes the ones before it."""

    DETERMINISTIC = 0
    MC = 1
    FLAG = 2


@dataclass(frozen=True)
class MonteCarlo:
    """What the members say; see `Prediction`."""

    label: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    predictive_entropy: NDArray[np.float32]
    expected_entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]


@dataclass(frozen=True)
class Flags:
    """What the detector says; see `Prediction`."""

    p_value: NDArray[np.float64] | None
    flagged: NDArray[np.bool_] | None
    level: float | None
    reasons: list[str | None]


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about B inputs with C classes.

    Attributes:
        samples: How many members answered; 0 if none was asked. ``[B]`` where each input asked for as many as it took.
        label: ``[B]``, class index of the deterministic prediction.
        probabilities: ``[B, C]``, deterministic.
        monte_carlo: None if only the deterministic prediction was asked for.
        flags: None if no flag was asked for.
    """

    samples: int | NDArray[np.int64]
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    monte_carlo: MonteCarlo | None
    flags: Flags | None

    @property
    def mc_samples(self) -> NDArray[np.int32]:
        """``[B]``, how many members answered each input."""
        return np.broadcast_to(np.asarray(self.samples, dtype=np.int32), self.label.shape)

    @property
    def mc_label(self) -> NDArray[np.int64]:
        """``[B]``, class index of the largest mean."""
        return _require(self.monte_carlo).label

    @property
    def mc_mean(self) -> NDArray[np.float32]:
        """``[B, C]``, mean probabilities over the members."""
        return _require(self.monte_carlo).mean

    @property
    def mc_std(self) -> NDArray[np.float32]:
        """``[B, C]``, standard deviation over the members (divisor K)."""
        return _require(self.monte_carlo).std

    @property
    def predictive_entropy(self) -> NDArray[np.float32]:
        """``[B]``, total uncertainty in nats."""
        return _require(self.monte_carlo).predictive_entropy

    @property
    def expected_entropy(self) -> NDArray[np.float32]:
        """``[B]``, aleatoric part in nats."""
        return _require(self.monte_carlo).expected_entropy

    @property
    def mutual_information(self) -> NDArray[np.float32]:
        """``[B]``, epistemic part in nats."""
        return _require(self.monte_carlo).mutual_information

    @property
    def p_value(self) -> NDArray[np.float64] | None:
        """``[B]``, conformal; None without a calibration that applies."""
        return _require(self.flags).p_value

    @property
    def flagged(self) -> NDArray[np.bool_] | None:
        """``[B]``, p-value at or below the level; None without a calibration that applies."""
        return _require(self.flags).flagged

    @property
    def level(self) -> float | None:
        """The largest p-value that is flagged; None without a calibration that applies."""
        return _require(self.flags).level

    @property
    def reasons(self) -> list[str | None]:
        """For each input ``unfamiliar``, ``uncertain`` or ``out_of_range`` where flagged, None where not.

        Without a calibration that applies, ``not_calibrated`` or ``not_calibrated_for_these_samples``.
        """
        return _require(self.flags).reasons

    def rows(self, start: int, stop: int) -> Prediction:
        """The prediction of some of the inputs."""
        return replace(
            self,
            samples=self.samples if isinstance(self.samples, int) else self.samples[start:stop],
            label=self.label[start:stop],
            probabilities=self.probabilities[start:stop],
            monte_carlo=self.monte_carlo and _slice(self.monte_carlo, start, stop),
            flags=self.flags and _slice(self.flags, start, stop),
        )


def _slice(part: Part, start: int, stop: int) -> Part:
    values: dict[str, Any] = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
    sliced = {name: v[start:stop] if isinstance(v, np.ndarray | list) else v for name, v in values.items()}
    return type(part)(**sliced)


def _require(part: Part | None) -> Part:
    if part is None:
        raise ModelError("Expected a part of the prediction that was asked for; call predict() with more `work`.")
    return part
