"""The first batches that a freshly loaded model is asked: they show what it does, and make it warm."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dubio.models.budget import MAX_LIVE
from dubio.models.ensemble import Ensemble
from dubio.models.inputs import encoding
from dubio.models.predictor import Predictor

# One row is what most requests carry, the others are a small and a large batch: all are warm before the first request.
ROW_COUNTS = (1, 8, 32)
MAX_SECONDS = 20.0  # a batch that, by how long the last took, would take longer is not tried


def most_rows(predictor: Predictor | Ensemble) -> int:
    """How many rows may be tried at a time, by the memory that the network's results take; one at least."""
    return max(1, MAX_LIVE // predictor.row_bytes)


def batches(predictor: Predictor | Ensemble) -> Iterator[NDArray[np.float32]]:
    """Seeded noise from the range seen in training, in batches of growing size, as long as they are cheap enough.

    Args:
        predictor: To ask; what is done with a batch is timed until the next is wanted.
    """
    most, last, seconds = most_rows(predictor), 1, 0.0
    for rows in ROW_COUNTS:
        if rows > 1 and (rows > most or seconds * rows / last > MAX_SECONDS):
            return
        began = time.perf_counter()
        yield encoding.noise(predictor.input, rows).numpy()
        last, seconds = rows, time.perf_counter() - began


def ask(predictor: Predictor | Ensemble) -> None:
    """Predict each of these batches, and read the model's own example as a request's text or table is read.

    Raises:
        InvalidInput: If it does not take them.
    """
    if predictor.input.reader is not None:
        predictor.input.reader.read([predictor.input.reader.example()])
    for x in batches(predictor):
        predictor.predict(x)
