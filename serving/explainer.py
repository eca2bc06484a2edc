"""The explainer: says why rows were flagged, apart from the batches that predict."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dubio.models import Ensemble, Prediction, Predictor
from dubio.serving.errors import DeadlineExceeded


class Explainer:
    """One thread, in which one request is explained after the other; what nobody waits for any more is left out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="dubio-explain")

    async def explain(
        self, predictor: Predictor | Ensemble, inputs: NDArray[np.float32], prediction: Prediction, seconds: float
    ) -> Prediction:
        """The same prediction with its explanations.

        Args:
            predictor: Who predicted.
            inputs: Raw rows.
            prediction: Of these rows, with the flag.
            seconds: Until the answer is of no use.

        Raises:
            DeadlineExceeded: The time is up.
        """
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(self._pool.submit(predictor.explain, inputs, prediction))
        except TimeoutError as error:
            raise DeadlineExceeded(
                "Expected the explanations within the time for an answer, but they were not ready; send fewer rows, "
                "leave out `parameters.explain`, or allow more time."
            ) from error

    def close(self) -> None:
        """Wait for what is running, drop what has not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)
