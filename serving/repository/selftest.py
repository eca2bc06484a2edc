"""Trial predictions of a freshly loaded model: it serves only if they hold, and is warm afterwards."""

from __future__ import annotations

import sys

import numpy as np

from dubio.models import Ensemble, Prediction, Predictor, Work
from dubio.models.budget import Budget
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.serving.errors import SelfTestFailed

# One row is what most requests carry, the others are a small and a large batch: all are warm before the first request.
_ROW_COUNTS = (1, 8, 32)
_MAX_LIVE = 2**30  # bytes of the network's results; a batch that would take more is not tried
_EXACT = ("label", "probabilities")
# Members are chunked and padded to the batch, which may round differently.
_ROUNDED = ("mc_mean", "mc_std", "predictive_entropy", "expected_entropy", "mutual_information")
_ROUNDING = 1e-5


def check(name: str, predictor: Predictor | Ensemble) -> None:
    """Predict seeded noise from the range seen in training, twice, and judge the answers.

    Raises:
        SelfTestFailed: An answer is not finite, differs between two calls or with less work asked for, no p-value is
            a probability, or the members never disagree.
    """
    spec = predictor.input
    if spec.reader is not None:
        try:  # which also makes ready what is only built when first needed, such as a tokenizer
            spec.reader.read([spec.reader.example()])
        except InvalidInput as error:
            raise _failed(name, f"it does not take its own example ({error})") from error
    varied = False
    for rows in [rows for rows in _ROW_COUNTS if rows <= most_rows(predictor)]:
        x = encoding.noise(spec, rows).numpy()
        try:
            golden, again = predictor.predict(x), predictor.predict(x)
            deterministic = predictor.predict(x, work=Work.DETERMINISTIC)
        except InvalidInput as error:
            raise _failed(name, f"it does not take inputs within the range seen in training ({error})") from error
        _check_repeats(name, golden, again)
        if not np.array_equal(deterministic.probabilities, golden.probabilities):
            raise _failed(name, "`probabilities` depend on whether the members are asked as well")
        varied = varied or bool(golden.mc_std.max() > 0)
    if not varied:
        raise _failed(name, "the committee's members all agree to the last bit, so `mc_std` would always be 0")


def most_rows(predictor: Predictor | Ensemble) -> int:
    """How many rows may be tried at a time, by the memory that the network's results take; one at least."""
    budget = Budget("one input", sys.maxsize, sys.maxsize)
    predictors = predictor.predictors if isinstance(predictor, Ensemble) else [predictor]
    for each in predictors:
        with budget:
            each.deterministic(encoding.noise(each.input, 1))
    return max(1, _MAX_LIVE // max(1, budget.peak))


def _check_repeats(name: str, golden: Prediction, again: Prediction) -> None:
    for column in (*_EXACT, *_ROUNDED):
        expected, repeated = getattr(golden, column), getattr(again, column)
        if not np.isfinite(expected).all():
            raise _failed(name, f"`{column}` is not finite for inputs within the range seen in training")
        if not np.allclose(repeated, expected, rtol=0, atol=0 if column in _EXACT else _ROUNDING):
            raise _failed(name, f"`{column}` differs between two calls with the same input")
    if golden.p_value is not None and not ((golden.p_value > 0) & (golden.p_value <= 1)).all():
        raise _failed(name, "`p_value` is not a probability for inputs within the range seen in training")


def _failed(name: str, what: str) -> SelfTestFailed:
    return SelfTestFailed(f"Model {name!r} failed its self-test: {what}; train or calibrate it again.")
