"""Trial predictions of a freshly loaded model: it serves only if they hold."""

from __future__ import annotations

import numpy as np

from models import Prediction, Predictor
from serving.errors import SelfTestFailed

# One row is what most requests carry, eight is a small batch: both paths are warm before the first request.
_ROW_COUNTS = (1, 8)


def check(name: str, predictor: Predictor) -> None:
    """Predict seeded noise from the range seen in training, twice, and judge the answers.

    Raises:
        SelfTestFailed: an answer is not finite or differs between two calls, or the members never disagree.
    """
    spec = predictor.input
    varied = False
    for rows in _ROW_COUNTS:
        x = np.random.default_rng(0).uniform(spec.low, spec.high, size=(rows, *spec.shape)).astype(np.float32)
        first, second = predictor.predict(x), predictor.predict(x)
        for column in ("probabilities", "mc_mean", "mc_std", "mutual_information"):
            values = getattr(first, column)
            if not np.isfinite(values).all():
                raise _failed(name, f"`{column}` is not finite for inputs within the range seen in training")
            if not np.allclose(values, getattr(second, column), rtol=0, atol=1e-5):
                raise _failed(name, f"`{column}` differs between two calls with the same input")
        varied = varied or _varies(first)
    if not varied:
        raise _failed(name, "the committee's members all agree to the last bit, so `mc_std` would always be 0")


def _varies(prediction: Prediction) -> bool:
    return bool(prediction.mc_std.max() > 0)


def _failed(name: str, what: str) -> SelfTestFailed:
    return SelfTestFailed(f"Model {name!r} failed its self-test: {what}; train or calibrate it again.")
