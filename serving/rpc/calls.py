"""Calls: what is done around every one of them, as the layers around the routes do over HTTP.

A call is taken as a stream that holds one message, which is the same on the wire: so a caller's key is looked at before
the message is received, and the message must come in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message

from dubio.serving.errors import BodyTooSlow, DeadlineExceeded, Forbidden, InvalidRequest, TooManyCalls
from dubio.serving.http.api_keys import ApiKeys, Scope
from dubio.serving.http.auth import ADMINISTRATION_IS_OFF, OPEN, identify, require
from dubio.serving.http.middleware import CALLER_LEFT
from dubio.serving.http.request import name_request
from dubio.serving.rpc.status import refuse
from dubio.serving.settings import Settings
from dubio.serving.telemetry.access_log import RequestRecord
from dubio.serving.telemetry.expected_series import RouteAnswers
from dubio.serving.telemetry.telemetry import Telemetry

METHOD = "gRPC"
"""What the access log has where it has a method of HTTP."""
# Of calls that anybody may make, at a time, and until the message is there, in which there is next to nothing.
_MOST_OPEN = 128
_OPEN_SECONDS = 2.0
_LONGEST_CLIENT = 64
# What any call may answer, in HTTP's numbers, and what one that asks a model may, too.
_ANSWERS = (200, 400, 408, 429, 500)
_OF_MODELS = (404, 503, 504)
# A caller's clock starts before ours, and its deadline travels rounded up, by a hundredth at most: what it gives up at
# its deadline comes this much too early.
_EARLY_SECONDS, _EARLY_SHARE = 0.05, 0.01

Kind = TypeVar("Kind", bound=Message)


@dataclass
class Call:
    """One call, while it is answered.

    Attributes:
        context: gRPC's own.
        headers: Its metadata.
        request_id: The caller's name for it, or one of ours.
        metadata: To go behind the answer.
        model: Name of the loaded model that is asked; None if none is.
        version: Of that model.
        rows: How many instances are asked.
        allowed: Seconds until the caller's deadline, at the beginning; None if there is none.
    """

    context: grpc.aio.ServicerContext
    headers: list[tuple[bytes, bytes]]
    request_id: str
    metadata: list[tuple[str, str]] = field(default_factory=list)
    model: str | None = None
    version: str | None = None
    rows: int | None = None
    allowed: float | None = None

    @classmethod
    def begin(cls, context: grpc.aio.ServicerContext) -> Call:
        """Take up a call."""
        headers = [
            (name.encode(), value.encode() if isinstance(value, str) else value)
            for name, value in context.invocation_metadata() or ()
        ]
        request_id = name_request(dict(headers).get(b"x-request-id", b"")).decode()
        return cls(context, headers, request_id, allowed=context.time_remaining())

    def header(self, name: str) -> str | None:
        """The caller's metadata of this name."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name.lower().encode()), None)

    @property
    def seconds(self) -> float | None:
        """Until the caller's deadline; None if there is none."""
        left: float | None = self.context.time_remaining()
        return None if left is None else max(0.0, left)

    @property
    def out_of_time(self) -> bool:
        """Whether a caller that is gone left because its deadline is over, as near as that can be told from here."""
        left = self.seconds
        return left is not None and left <= _EARLY_SECONDS + _EARLY_SHARE * (self.allowed or 0.0)

    @property
    def client(self) -> str:
        """The caller's address."""
        _, _, address = unquote(self.context.peer()).partition(":")
        return address.rpartition(":")[0].strip("[]")[:_LONGEST_CLIENT]


Answer = Callable[[bytes, Call], Awaitable[bytes]]


@dataclass
class Calls:
    """Names, admits, times, counts, logs and traces every call, and answers what went wrong.

    Attributes:
        telemetry: Is told of every call.
        keys: That are known.
        settings: The operator's limits.
        in_flight: How many calls are being answered.
        answers: What each may answer, for the metrics.
    """

    telemetry: Telemetry
    keys: ApiKeys
    settings: Settings
    in_flight: int = 0
    answers: list[RouteAnswers] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._any_key = self.keys.any  # which does not change with the keys
        self._open = 0  # of those in flight, that anybody may make

    def handler(
        self, path: str, needed: Scope | None, answer: Answer, *, predicts: bool = False
    ) -> grpc.RpcMethodHandler:
        """What gRPC calls for a method.

        Args:
            path: The method's.
            needed: The scope that a key must have; `OPEN` for everybody.
            answer: From a message's bytes to the answer's.
            predicts: Whether it asks a model.
        """
        statuses = {*_ANSWERS, *((401, 403) if self._any_key else ()), *(_OF_MODELS if predicts else ())}
        self.answers.append(RouteAnswers(path, sorted(map(str, statuses)), predicts=predicts))

        is_open = needed is OPEN

        async def respond(_: object, context: grpc.aio.ServicerContext) -> bytes:
            self.in_flight += 1
            self._open += is_open
            try:
                return await self._respond(path, needed, answer, Call.begin(context))
            finally:
                self.in_flight -= 1
                self._open -= is_open

        return grpc.stream_unary_rpc_method_handler(respond)

    async def _respond(self, path: str, needed: Scope | None, answer: Answer, call: Call) -> bytes:
        started = time.perf_counter()
        status, code, reason = CALLER_LEFT, grpc.StatusCode.CANCELLED, None
        with self.telemetry.span(METHOD, call.headers) as span:
            try:
                self._admit(needed, call)
                body = await answer(await self._receive(call, needed), call)
                call.context.set_trailing_metadata((("x-request-id", call.request_id), *call.metadata))
                status, code = HTTPStatus.OK, grpc.StatusCode.OK
                return body
            except asyncio.CancelledError:
                if call.out_of_time:
                    status, code, reason, *_ = refuse(DeadlineExceeded(), request_id=call.request_id, path=path)
                raise
            except Exception as error:  # whatever it is, the next call must find the service well
                refusal = refuse(error, request_id=call.request_id, path=path)
                status, code, reason, *_ = refusal
            finally:
                record = RequestRecord(
                    request_id=call.request_id,
                    method=METHOD,
                    path=path,
                    status=status,
                    seconds=time.perf_counter() - started,
                    client=call.client,
                    route=path,
                    model=call.model,
                    version=call.version,
                    rows=call.rows,
                    refused=reason,
                    code=code.name,
                )
                self.telemetry.count_request(record, span)
        metadata = (("x-request-id", call.request_id), *refusal.metadata)
        await call.context.abort(refusal.code, refusal.detail, metadata)
        raise AssertionError("An aborted call goes on.")

    def _admit(self, needed: Scope | None, call: Call) -> None:
        # Whoever has no key takes no place from those who have one.
        most, calls = self.settings.grpc_max_calls, self.in_flight - self._open
        if needed is OPEN:
            most, calls = _MOST_OPEN, self._open
        if calls > most:
            raise TooManyCalls(
                f"Expected at most {most} calls at a time, but more came; try again in a "
                "moment, or send more rows with each.",
                retry_after=1,
            )
        if needed is Scope.ADMIN and not self.keys.grants(Scope.ADMIN):
            raise Forbidden(ADMINISTRATION_IS_OFF)
        if needed is not OPEN and self._any_key:
            require(needed, identify(self.keys, call.headers))

    async def _receive(self, call: Call, needed: Scope | None) -> bytes:
        seconds = self.settings.body_seconds
        if needed is OPEN:
            seconds = min(seconds, _OPEN_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                body = await call.context.read()
        except TimeoutError as error:
            raise BodyTooSlow(
                f"Expected the message within {seconds:g} s, but it is not complete; send smaller ones."
            ) from error
        if body is grpc.aio.EOF:
            raise InvalidRequest("Expected one message, but none came; send one.")
        received: bytes = body
        return received


def parse(kind: type[Kind], body: bytes) -> Kind:
    """The message that a body is.

    Raises:
        InvalidRequest: It is none of this kind.
    """
    message: Kind = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidRequest(
            f"Expected a message {kind.DESCRIPTOR.name} of the Open Inference Protocol, but its {len(body)} bytes "
            f"cannot be read: {error}; use a client of the protocol."
        ) from error
    return message
