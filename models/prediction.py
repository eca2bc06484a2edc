"""The prediction: both answers and the flag, for a batch, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUT_OF_RANGE = "out_of_range"  # a raw value outside what the training split contained
NOT_CALIBRATED = "not_calibrated"
NOT_CALIBRATED_FOR_SAMPLES = "not_calibrated_for_these_samples"


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about B inputs with C classes.

    Attributes:
        samples: how many members answered.
        label: ``[B]``, class index of the deterministic prediction.
        probabilities: ``[B, C]``, deterministic.
        mc_label: ``[B]``, class index of the largest mean.
        mc_mean: ``[B, C]``, mean over the members.
        mc_std: ``[B, C]``, standard deviation over the members (divisor K).
        predictive_entropy: ``[B]``, total uncertainty in nats.
        expected_entropy: ``[B]``, aleatoric part in nats.
        mutual_information: ``[B]``, epistemic part in nats.
        p_value: ``[B]``, conformal; None without a calibration that applies.
        flagged: ``[B]``, p-value at or below the level; None likewise.
        level: None likewise.
        reasons: for each input ``unfamiliar``, ``uncertain`` or ``out_of_range`` where flagged, None where not; without
            a calibration that applies, ``not_calibrated`` or ``not_calibrated_for_these_samples``.
    """

    samples: int
    label: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    mc_label: NDArray[np.int64]
    mc_mean: NDArray[np.float32]
    mc_std: NDArray[np.float32]
    predictive_entropy: NDArray[np.float32]
    expected_entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    p_value: NDArray[np.float64] | None
    flagged: NDArray[np.bool_] | None
    level: float | None
    reasons: list[str | None]
