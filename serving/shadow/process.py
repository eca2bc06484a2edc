"""The process of a shadow, as seen from the one that serves."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dubio.models import child_process
from dubio.serving.errors import ShadowEnded

_CHILD = "dubio.serving.shadow.child"
_MOST_BYTES = 2**24
_LAST_WORDS = 500
_ENDING_SECONDS = 2.0


class Ready(BaseModel):
    """What a shadow says of itself once it is loaded."""

    model_config = ConfigDict(strict=True)

    input: dict[str, Any]
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    promise: bool


class Answer(BaseModel):
    """What a shadow says about the rows of a request; `error` is why it says nothing."""

    model_config = ConfigDict(strict=True)

    labels: list[str] = []
    flagged: list[bool] = []
    error: str | None = None
    seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)


class ShadowProcess:
    """Starts it.

    Args:
        request: What to load, and how.

    Raises:
        ShadowEnded: It cannot be started.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        try:
            self.process = child_process.start(_CHILD, theirs.fileno())
        except (OSError, ValueError) as error:
            ours.close()
            raise ShadowEnded(f"its process cannot be started: {getattr(error, 'strerror', None) or error}") from error
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._send(orjson.dumps(request))

    def await_ready(self, seconds: float) -> Ready:
        """Wait until it is loaded.

        Raises:
            ShadowEnded: It cannot be, or not in so many seconds.
        """
        answer = self._receive(seconds)
        if "error" in answer:
            raise ShadowEnded(str(answer["error"]))
        try:
            return Ready.model_validate(answer)
        except ValidationError as error:
            raise ShadowEnded("its process does not say what it is") from error

    def ask(self, inputs: NDArray[np.float32], seconds: float) -> Answer:
        """Have it predict.

        Raises:
            ShadowEnded: It crashed, or is not ready in so many seconds.
        """
        self._send(orjson.dumps(inputs.shape))
        self._send(np.ascontiguousarray(inputs).tobytes())
        try:
            answer = Answer.model_validate(self._receive(seconds))
        except ValidationError as error:
            raise ShadowEnded("its process does not give an answer") from error
        if answer.error is None and not (len(answer.labels) == len(inputs) and len(answer.flagged) in (0, len(inputs))):
            raise ShadowEnded("its process answers for another number of rows than it was asked for")
        return answer

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise ShadowEnded(self._end()) from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            if not self._connection.poll(seconds):
                raise ShadowEnded(f"it was not ready within {seconds:g} s")
            answer = orjson.loads(self._connection.recv_bytes(_MOST_BYTES))
        except (EOFError, OSError, orjson.JSONDecodeError) as error:
            raise ShadowEnded(self._end()) from error
        return answer if isinstance(answer, dict) else {}

    def _end(self) -> str:
        """How it ended."""
        try:
            code = self.process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        said = b"" if self.process.stderr is None else self.process.stderr.read()
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        how = f"its process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        return f"{how}: {last[0][:_LAST_WORDS]}" if last else how
