"""HTTP on one connection: uvicorn's, with bounds on what it takes and waits for before the application has a say.

uvicorn collects a request's head, or the fields behind a chunked body, however long they are and however long they
take, and queues requests that are sent before the answer to the one before. This costs a request one or two
microseconds: sizes are compared a chunk at a time, and a timer is only set for a head that is not there at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from dubio.serving.telemetry.definitions import ProtocolReason

# More than any client sends; each costs a hundred times what its shortest form takes on the wire.
_MOST_FIELDS = 1000
# Requests behind the one that is being answered.
_MOST_WAITING = 16
# Beside its name and value, what a field takes on the wire.
_FIELD_BYTES = len(b": \r\n")
# How long an idle connection stays open once the service closes: a request may be on its way.
_LINGER_SECONDS = 0.5
# An overdue timer runs before what has come meanwhile is read; a connection that is to be closed is read once more.
_LAST_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """What a request's head may be.

    Attributes:
        head_bytes: Most bytes of its method, path and header fields.
        head_seconds: Most seconds from its first byte to its last.
    """

    head_bytes: int
    head_seconds: float


class _Refusal(NamedTuple):
    """Why a connection is closed, for its client and for the metrics."""

    status: HTTPStatus
    reason: ProtocolReason
    detail: str


# What of a request comes next. No Enum: its members are looked up for every request.
_NOTHING, _HEAD, _BODY = range(3)

_NO_HTTP = _Refusal(
    HTTPStatus.BAD_REQUEST,
    ProtocolReason.MALFORMED_HTTP,
    "Expected an HTTP/1.1 request, but got something else; use an HTTP client.",
)
_TOO_MANY_FIELDS = _Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ProtocolReason.HEAD_TOO_LARGE,
    f"Expected at most {_MOST_FIELDS} header fields, but got more; send fewer.",
)
_TOO_MANY_WAITING = _Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    ProtocolReason.TOO_MANY_PIPELINED,
    f"Expected at most {_MOST_WAITING} requests to wait on a connection for the answer to another, but got more; "
    "open more connections.",
)


class BoundedProtocol(HttpToolsProtocol):
    """One connection; refuses what is beyond its limits with 431 or 408, in JSON, and closes."""

    def __init__(self, *args: Any, limits: Limits, refused: Callable[[str], None], **kwargs: Any) -> None:
        """Wait for a request.

        Args:
            args: For uvicorn.
            limits: What a head may be.
            refused: Told a reason for whatever is refused here.
            kwargs: For uvicorn.
        """
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._refused = refused
        self._part = _NOTHING
        self._chunk = 0
        # Bytes of the chunk in which the last head began; and of whole chunks since, in which no head began or ended
        # and no body came: they are a head's, or fields behind a body.
        self._first = 0
        self._silent = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._leaving = False
        self._refusal = _NO_HTTP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request no longer than for a second one; uvicorn would for ever."""
        super().connection_made(transport)
        self._close_after(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_watch()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see that what is not whole yet stays within bounds."""
        self._chunk = len(data)
        self._silent += self._chunk
        super().data_received(data)
        if self._part is not _NOTHING or self._silent or self.cycle is None or self.cycle.response_complete:
            self._bound()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._part = _HEAD
        self._first = self._chunk
        self._silent = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End a head: nothing of the application runs if it is too large."""
        if self._deadline is not None:
            self._stop_watch()
        # A head in one small chunk, as they are, cannot be too large.
        if self._first + self._silent > self._limits.head_bytes and self._head_bytes() > self._limits.head_bytes:
            self._give_up(self._too_large())
        if len(self.headers) > _MOST_FIELDS:
            self._give_up(_TOO_MANY_FIELDS)
        if len(self.pipeline) >= _MOST_WAITING:
            self._give_up(_TOO_MANY_WAITING)
        self._part = _BODY
        self._silent = 0
        super().on_headers_complete()
        # After a request for another protocol, which this service does not speak, the parser reads no further one.
        if self._leaving or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body, which the application bounds."""
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._deadline is not None:
            self._stop_watch()
        self._part = _NOTHING
        self._silent = 0
        super().on_message_complete()

    def shutdown(self) -> None:
        """Answer what was asked, and what is asked right now, and then close."""
        self._leaving = True
        if self._part is _NOTHING and (self.cycle is None or self.cycle.response_complete):
            self._close_after(_LINGER_SECONDS)
        elif self._part is not _HEAD:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless there is something to read after all."""
        self.timeout_keep_alive_task = self.loop.call_later(_LAST_LOOK_SECONDS, super().timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; `msg` is uvicorn's word for it."""
        self._refuse(self._refusal)

    def _bound(self) -> None:
        """Bound what is not up to the application, after a chunk was read."""
        if self.transport.is_closing():
            return
        if self._silent > self._limits.head_bytes:
            self._refuse(self._too_large())
        elif self._part is _NOTHING:
            # What came was no request, or the rest of one that was answered before: idle again.
            if self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
                self._close_after(_LINGER_SECONDS if self._leaving else self.timeout_keep_alive)
        elif len(self.headers) > _MOST_FIELDS:
            self._refuse(_TOO_MANY_FIELDS)
        elif self._deadline is None and (self._part is _HEAD or self.cycle.response_complete):
            self._deadline = self.loop.call_later(self._limits.head_seconds, self._too_late)

    def _too_late(self) -> None:
        if self._part is _HEAD:
            self._refuse(
                _Refusal(
                    HTTPStatus.REQUEST_TIMEOUT,
                    ProtocolReason.HEAD_TOO_SLOW,
                    f"Expected the request's head within {self._limits.head_seconds:g} s, but it is not complete; send "
                    "it at once.",
                )
            )
        else:  # the rest of a body that nobody wants: it has been answered
            self.transport.close()

    def _refuse(self, refusal: _Refusal) -> None:
        """Say why, if the client cannot take it for the answer to something else, and close."""
        self._stop_watch()
        if self.transport.is_closing():
            return
        self._refused(refusal.reason)
        cycle = self.cycle
        unanswered = cycle is not None and not cycle.response_complete
        about_it = unanswered and cycle.scope is self.scope and not cycle.response_started and not self.pipeline
        if about_it or not unanswered:
            self.transport.write(_answer(refusal))
        self.transport.close()
        if unanswered:  # its answer may be ready before the loop tells that the connection is lost
            cycle.disconnected = True
            cycle.message_event.set()

    def _give_up(self, refusal: _Refusal) -> None:
        """End the parser's work; it answers with `send_400_response`."""
        self._refusal = refusal
        raise ValueError(refusal.reason)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _FIELD_BYTES for name, value in self.headers)

    def _too_large(self) -> _Refusal:
        return _Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            ProtocolReason.HEAD_TOO_LARGE,
            f"Expected a request's head of at most {self._limits.head_bytes} bytes, but got more; send fewer or "
            "shorter header fields.",
        )

    def _close_after(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _stop_watch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _answer(refusal: _Refusal) -> bytes:
    """Write the whole answer, in the form that other errors have."""
    document = {"title": refusal.status.phrase, "status": refusal.status.value, "detail": refusal.detail}
    body = orjson.dumps({"type": "about:blank", **document})
    head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return STATUS_LINE[refusal.status] + head + body
