"""What the process that computes does: it loads models and asks them, by number."""

from __future__ import annotations

import logging
import statistics
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dubio.models import Ensemble, Prediction, Predictor, Samples, Work, warmup
from dubio.models.inputs import encoding
from dubio.serving.compute.model_facts import ModelFacts
from dubio.serving.repository import heap
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.source import ModelSource

_log = logging.getLogger("dubio")

LONG_ROW_SECONDS = 0.001
"""Where a row of a batch takes longer, with the flag of all members, the network is what a service waits for, not the
requests around it, which take a fifth of a millisecond each. benchmarks/README.md has the figures."""
_TRIED_ROWS = 8
_TRIES = 3


@dataclass(frozen=True)
class _Hosted:
    predictor: Predictor | Ensemble
    threads: int


@dataclass
class Engine:
    """Hosts models. Any thread may call; one at a time loads.

    Attributes:
        loader: Loads them.
        few: How many threads torch takes for a model of short predictions, which leaves a processor to the requests.
        most: How many for all others; as many or more.
    """

    loader: Loader
    few: int
    most: int
    _hosted: dict[int, _Hosted] = field(default_factory=dict)
    _last: int = 0

    def try_device(self) -> None:
        """See `Loader.try_device`."""
        self.loader.try_device()

    def load(self, source: ModelSource) -> tuple[int, ModelFacts]:
        """Load one version of a model; raises what `Loader.read` raises.

        How members are run is measured with the threads that will run them, so a model that turns out to want more
        threads is loaded once more.

        Returns:
            Its number, and what is known of it.
        """
        threads = self.few
        predictor = self._read(source, threads)
        if threads < self.most and (seconds := _seconds_a_row(predictor)) > LONG_ROW_SECONDS:
            threads = self.most
            _log.info(
                "Model %s takes %.1f ms a row with %d of %d threads; loading it again for all of them.",
                *(source.name, seconds * 1e3, self.few, self.most),
            )
            predictor = self._read(source, threads)
        self._last += 1
        self._hosted[self._last] = _Hosted(predictor, threads)
        heap.freeze()
        return self._last, ModelFacts.of(predictor)

    def predict(self, key: int, x: NDArray[np.float32], samples: Samples, work: Work) -> Prediction:
        """Have a model predict; raises what it raises."""
        return self._ask(key).predict(x, samples=samples, work=work)

    def explain(self, key: int, x: NDArray[np.float32], prediction: Prediction) -> Prediction:
        """Have a model explain what it predicted; raises what it raises."""
        return self._ask(key).explain(x, prediction)

    def forget(self, key: int) -> None:
        """Let a model go."""
        del self._hosted[key]
        heap.refreeze()

    def _ask(self, key: int) -> Predictor | Ensemble:
        """A model, for which this thread is made ready: torch keeps a number of threads for each."""
        hosted = self._hosted[key]
        torch.set_num_threads(hosted.threads)
        return hosted.predictor

    def _read(self, source: ModelSource, threads: int) -> Predictor | Ensemble:
        torch.set_num_threads(threads)
        return self.loader.read(source)


def _seconds_a_row(predictor: Predictor | Ensemble) -> float:
    """How long a row takes, in a batch of a few."""
    rows = min(_TRIED_ROWS, warmup.most_rows(predictor))
    x = encoding.noise(predictor.input, rows).numpy()
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        predictor.predict(x)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) / rows
