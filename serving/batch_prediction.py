"""What a batch is answered: predicted together, taken apart for its requests, and in parts where the whole fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction, Samples, Work, device
from dubio.models.memory import exhausted
from dubio.serving.compute.remote_predictor import AnyPredictor
from dubio.serving.errors import ComputationLost, DeviceLost, OutOfMemory

_log = logging.getLogger("dubio")

Rows = NDArray[np.float32]
"""Raw rows of one request, ``[B, *shape]``."""
Answers = list[Prediction | Exception]
"""One for each request."""


def join(batch: Sequence[Rows]) -> Rows:
    """All rows of several arrays."""
    return batch[0] if len(batch) == 1 else np.concatenate(batch)


def split(answer: Prediction, batch: Sequence[Rows]) -> Answers:
    """The part of each of the arrays that were predicted together."""
    ends = list(accumulate(len(each) for each in batch))
    return [*answer.split([slice(start, end) for start, end in pairwise([0, *ends])])]


def predict(predictor: AnyPredictor, batch: Sequence[Rows], samples: Samples, work: Work) -> Answers:
    """One prediction for all; where it fails, one for each, so that a bad request harms no other.

    What does not fit into memory is halved instead. Where not even a row fits, nothing else is tried.

    Args:
        predictor: To ask.
        batch: The rows of each request.
        samples: How many members.
        work: How much to compute.
    """
    answer = _attempt(predictor, batch, samples, work)
    if isinstance(answer, Prediction):
        return split(answer, batch)
    if len(batch) == 1:
        return [_halve(predictor, batch[0], samples, work) if isinstance(answer, OutOfMemory) else answer]
    if isinstance(answer, ComputationLost):
        return [answer] * len(batch)
    too_large = isinstance(answer, OutOfMemory)
    del answer  # with the arrays that its frames hold
    if not too_large:
        return [answer for rows in batch for answer in predict(predictor, [rows], samples, work)]
    half = len(batch) // 2
    first = predict(predictor, batch[:half], samples, work)
    if all(isinstance(answer, OutOfMemory) for answer in first):
        return first + [OutOfMemory() for _ in batch[half:]]
    return first + predict(predictor, batch[half:], samples, work)


def _halve(predictor: AnyPredictor, inputs: Rows, samples: Samples, work: Work) -> Prediction | Exception:
    """Predict a request that does not fit into memory in two halves, and these likewise, down to a row."""
    if len(inputs) < 2:
        return OutOfMemory()
    parts: list[Prediction] = []
    for half in np.array_split(inputs, 2):
        part = _attempt(predictor, [half], samples, work)
        if isinstance(part, OutOfMemory):
            part = _halve(predictor, half, samples, work)
        if not isinstance(part, Prediction):
            return part
        parts.append(part)
    return Prediction.join(parts)


def _attempt(predictor: AnyPredictor, batch: Sequence[Rows], samples: Samples, work: Work) -> Prediction | Exception:
    """A prediction, or why there is none."""
    try:
        return predictor.predict(join(batch), samples=samples, work=work)
    except Exception as error:  # handed to whoever caused it
        if device.lost(error):
            _log.error("The device is lost to this process: %s", error)
            return DeviceLost()
        if exhausted(error) is None:
            return error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Only out here are the arrays of what failed gone: an exception that is being handled keeps them.
    _log.warning("No memory to predict %d rows at once: %s", sum(map(len, batch)), reason)
    return OutOfMemory()
