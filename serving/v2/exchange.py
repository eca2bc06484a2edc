"""The exchange: an infer call between the bytes that were received and those that are sent, over every transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dubio.models import InputSpec, Prediction
from dubio.serving.http.recording import Recording
from dubio.serving.http.request import offload_if
from dubio.serving.repository.registry import ServedModel
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v2.decode import DecodedRequest
from dubio.serving.v2.input_tensor import ModelSignature
from dubio.serving.wire.effort import Effort, Readers

# Reading or writing this much takes about a millisecond; more would hold up the event loop.
LONG_BYTES = 64 * 1024
_LONG_BINARY = 1024 * 1024
_LONG_ROWS = 256
_LONG_EXPLAINED_ROWS = 2  # with pictures
# Texts are divided into words, and columns looked at value by value, which takes longer.
_LONG_READER = 4 * 1024

T = TypeVar("T")


class Decode(Protocol):
    """Reads what was received."""

    def __call__(self, *, model: ModelSignature, effort: Effort | None) -> DecodedRequest:
        """What it asks of a model."""


@dataclass(frozen=True)
class Exchange:
    """What every infer call goes through.

    Attributes:
        service: That predicts.
        settings: Its limits.
        readers: Read what is long.
    """

    service: PredictionService
    settings: Settings
    readers: Readers

    async def decode(self, model: ServedModel, decode: Decode, *, long: bool) -> DecodedRequest:
        """What is asked of a model.

        Args:
            model: From the repository.
            decode: Reads it.
            long: Whether that takes longer than the event loop may be held up; see `takes_long`.
        """
        facts = model.facts
        signature = ModelSignature(
            name=model.name,
            input=facts.input,
            classes=len(facts.classes),
            committee=facts.num_samples,
            max_rows=self.settings.max_rows,
        )
        if not long:
            return decode(model=signature, effort=None)
        effort = Effort(self.settings.timeout_seconds)
        return await self.readers.run(lambda: decode(model=signature, effort=effort), effort)

    async def predict(
        self, model: ServedModel, decoded: DecodedRequest, recording: Recording, timeout: float | None = None
    ) -> Prediction:
        """What the model says.

        Args:
            model: From the repository.
            decoded: What is asked of it.
            recording: Of the request.
            timeout: Seconds until nobody waits for it any more, by the transport; the request may say less.
        """
        seconds = [each for each in (timeout, decoded.timeout) if each is not None]
        return await self.service.predict(
            model,
            decoded.inputs,
            samples=decoded.samples,
            work=decoded.work,
            timeout=min(seconds, default=None),
            explain=decoded.explain,
            drawn=recording.draw(len(decoded.inputs)),
        )

    async def encode(self, decoded: DecodedRequest, encode: Callable[[], T]) -> T:
        """What `encode` writes, off the event loop if that is long."""
        long = len(decoded.inputs) > (_LONG_EXPLAINED_ROWS if decoded.explain else _LONG_ROWS)
        return await offload_if(long, encode)


def takes_long(body: bytes, spec: InputSpec, *, binary: bool) -> bool:
    """Whether reading a body takes longer than the event loop may be held up."""
    if spec.reader is not None:
        return len(body) > _LONG_READER
    # Image files take longer to read than their length tells.
    if len(body) > (_LONG_BINARY if binary else LONG_BYTES):
        return True
    return spec.kind == "image" and (b"BYTES" in body or b"\\u" in body)  # JSON may spell any letter by its number
