"""The exchange: a request that predicts, from its body to its answer, for every form that the answer may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from dubio.models import InputSpec, Prediction
from dubio.serving.http.recording import ASK, Recorder
from dubio.serving.http.request import cancel_on_disconnect, offload_if, read_body
from dubio.serving.repository.registry import ServedModel
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v1.decode import DecodedRequest, takes_long
from dubio.serving.v1.encode import LONG_EXPLAINED_ROWS, LONG_ROWS
from dubio.serving.wire.effort import Effort, Readers


class Decode(Protocol):
    """Reads a body."""

    def __call__(
        self, body: bytes, *, spec: InputSpec, committee: int, max_rows: int, effort: Effort | None
    ) -> DecodedRequest:
        """What it asks."""


@dataclass(frozen=True)
class Exchange:
    """Answers requests of `/v1`.

    Attributes:
        service: That predicts.
        settings: Its limits.
        readers: Read long bodies.
        recorder: Keeps answers.
    """

    service: PredictionService
    settings: Settings
    readers: Readers
    recorder: Recorder

    async def answer(
        self,
        request: Request,
        model: ServedModel,
        decode: Decode,
        encode: Callable[[Prediction, DecodedRequest], bytes],
    ) -> Response:
        """Predict what a request asks of a model.

        Args:
            request: The request.
            model: From the repository.
            decode: Reads its body.
            encode: Writes the answer.
        """
        request.state.model, request.state.version = model.name, model.version
        recording = self.recorder.begin(request.headers.get(ASK), request.state.request_id)
        facts, settings = model.facts, self.settings
        with self.service.telemetry.timer(model) as timer:
            body = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
            timer.lap()
            effort = Effort(settings.timeout_seconds) if takes_long(body, facts.input) else None

            def read() -> DecodedRequest:
                return decode(
                    body,
                    spec=facts.input,
                    committee=facts.num_samples,
                    max_rows=settings.max_rows,
                    effort=effort,
                )

            decoded = read() if effort is None else await self.readers.run(read, effort)
            request.state.rows = len(decoded.inputs)
            timer.lap()
            async with cancel_on_disconnect(request):
                left = None if effort is None else max(0.0, round(effort.seconds, 2))  # of all the time there was
                prediction = await self.service.predict(
                    model,
                    decoded.inputs,
                    samples=decoded.samples,
                    timeout=left,
                    explain=decoded.explain,
                    drawn=recording.draw(len(decoded.inputs)),
                )
            timer.lap()
            recording.keep(model, decoded.inputs, prediction, decoded.instance)
            long = len(decoded.inputs) > (LONG_EXPLAINED_ROWS if decoded.explain else LONG_ROWS)
            answer = await offload_if(long, lambda: encode(prediction, decoded))
            return Response(answer, headers=await recording.headers(), media_type="application/json")
