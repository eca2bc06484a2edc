"""A model of the process that computes, as seen from the one that serves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubio.models import Ensemble, Prediction, Predictor, Samples, Work
from dubio.models.prediction import Members
from dubio.serving.compute.calls import Calls, Done
from dubio.serving.compute.model_facts import ModelFacts
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.errors import ComputationLost


@dataclass(frozen=True, eq=False)
class RemotePredictor:
    """Answers like the `Predictor` or `Ensemble` there, which goes when this does. Thread-safe.

    Attributes:
        facts: All that is known of it without asking.
        process: Where it is.
        key: Its number there.
    """

    facts: ModelFacts
    process: ComputeProcess
    key: int

    def __post_init__(self) -> None:
        weakref.finalize(self, _forget, self.process, self.key).atexit = False

    @property
    def committee(self) -> Members:
        """How many members there are."""
        return self.facts

    def predict(self, x: NDArray[np.float32], *, samples: Samples = None, work: Work = Work.FLAG) -> Prediction:
        """See `dubio.models.prediction.Model.predict`; raises `ComputationLost`, too."""
        prediction: Prediction = self.process.call("predict", self.key, x, samples, work)
        return prediction

    def begin(
        self,
        calls: Calls,
        x: NDArray[np.float32],
        samples: Samples,
        work: Work,
        *,
        begun: Callable[[], None],
        done: Done,
    ) -> None:
        """As `predict`, but from the event loop; `done` is told the prediction or the exception. See `Calls.begin`."""
        calls.begin("predict", self.key, x, samples, work, begun=begun, done=done)

    def explain(self, x: NDArray[np.float32], prediction: Prediction) -> Prediction:
        """See `dubio.models.prediction.Model.explain`; raises `ComputationLost`, too."""
        explained: Prediction = self.process.call("explain", self.key, x, prediction)
        return explained


AnyPredictor = Predictor | Ensemble | RemotePredictor
"""What answers: here, or in the process that computes."""


def _forget(process: ComputeProcess, key: int) -> None:
    """Let the model go, without making whoever let go of this one wait for it."""

    def forget() -> None:
        try:
            process.call("forget", key)
        except ComputationLost:  # and with it the model
            return

    threading.Thread(target=forget, name="dubio-forget", daemon=True).start()
