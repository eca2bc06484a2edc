"""What is kept of the requests that predict, and what a caller is told who wants to know that it is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dubio.models import Prediction
from dubio.serving.errors import InvalidRequest
from dubio.serving.repository.registry import ServedModel
from dubio.serving.store.drawn import Drawn

if TYPE_CHECKING:  # which brings the database's libraries along, and most services have no store
    from dubio.serving.store.store import Store

ASK, TOLD = "Dubio-Store", "Dubio-Stored"
_WAIT = "wait"

PARAMETER: dict[str, Any] = {
    "name": ASK,
    "in": "header",
    "description": f"With `{_WAIT}` all rows of the request are kept, and the answer waits until they are on disk, or "
    f"no longer than the service allows; its header `{TOLD}` says which.",
    "schema": {"type": "string", "enum": [_WAIT]},
}
"""OpenAPI for what callers ask."""
HEADERS: dict[str, Any] = {
    TOLD: {
        "description": "Only for who asked: `true` if all rows are on disk, `false` if that is not known (yet).",
        "schema": {"type": "string", "enum": ["true", "false"]},
    }
}
"""OpenAPI for what they are told."""


@dataclass(frozen=True)
class Recorder:
    """Hands answers to the store, if there is one.

    Attributes:
        store: None for none.
        wait_seconds: How long an answer waits for it, at most, and only if it was asked to.
    """

    store: Store | None
    wait_seconds: float

    def begin(self, asked: str | None, request_id: str) -> Recording:
        """To be called before a request is read, so that one that asks for what there is not is refused.

        Args:
            asked: The header `Dubio-Store`, if there is one.
            request_id: Of the request.

        Raises:
            InvalidRequest: The header says something else.
        """
        if asked is not None and asked != _WAIT:
            raise InvalidRequest(f"Expected the header {ASK} to be {_WAIT!r}, but got {asked[:40]!r}; leave it out.")
        return Recording(self, request_id, asked is not None)


class Recording:
    """One request.

    Args:
        recorder: Of all requests.
        request_id: Of this one.
        waits: Whether its answer waits for the disk.
    """

    def __init__(self, recorder: Recorder, request_id: str, waits: bool) -> None:
        self._recorder, self._request_id, self._waits = recorder, request_id, waits
        self._drawn: Drawn | None = None
        self._done: Future[bool] | None = None

    def draw(self, rows: int) -> Drawn | None:
        """Choose which of so many rows are kept whatever is said about them; None if there is no store."""
        store = self._recorder.store
        if store is not None:
            self._drawn = Drawn(self._request_id, store.draw(rows), self._waits)
        return self._drawn

    def keep(
        self,
        model: ServedModel,
        inputs: NDArray[np.float32],
        prediction: Prediction,
        instance: Callable[[int], Any] | None,
    ) -> None:
        """Keep what is to be kept of it; see `Store.record`."""
        store = self._recorder.store
        if store is not None:
            self._done = store.record(
                model,
                inputs,
                prediction,
                request_id=self._request_id,
                sampled=None if self._drawn is None else self._drawn.sampled,
                instance=instance,
                everything=self._waits,
            )

    async def headers(self) -> dict[str, str]:
        """What the answer says about it, as soon as it is known."""
        if not self._waits:
            return {}
        stored = False
        if self._done is not None:
            try:
                async with asyncio.timeout(self._recorder.wait_seconds):
                    stored = await asyncio.wrap_future(self._done)
            except TimeoutError:
                stored = False  # it may still be
        return {TOLD: "true" if stored else "false"}
