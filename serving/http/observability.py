"""Around the whole application: names every request, times, counts, logs and traces it, answers what nobody caught."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubio.serving.http.problem_details import internal_error
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.telemetry.access_log import AccessLog
from dubio.serving.telemetry.metrics import Metrics
from dubio.serving.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# A caller's own id is taken only if it can go into a header and a log line as it is.
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
# nginx's word for a caller that left before the answer; nobody receives it, it is only counted.
_CLIENT_LEFT = 499
_SERVER_ERROR = 500
# What uvloop says of a connection that broke in this very round of the loop.
_CLOSED = "handler is closed"


class Observer:
    """ASGI middleware around the whole application.

    Routes say in `request.state` what they know of a request: `model` and `version` of a loaded model, and `rows`.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        access_log: AccessLog | None = None,
        lifecycle: Lifecycle | None = None,
    ) -> None:
        """Wrap `app`; requests are counted in `metrics`, and traced and logged if that is asked for.

        Once the `lifecycle` is stopping, every answer tells the client to close the connection.
        """
        self._app = app
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._access_log = access_log
        self._lifecycle = lifecycle or Lifecycle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if _SANE_ID.match(given) else uuid.uuid4().hex.encode()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if self._lifecycle.stopping:  # else a request sent later on it would meet a closed door
                    message["headers"].append((b"connection", b"close"))
            try:
                await send(message)
            except RuntimeError as error:
                if _CLOSED not in str(error):
                    raise
                while (await receive())["type"] != "http.disconnect":  # else the server would miss an answer
                    pass
                raise ClientDisconnect from error

        with self._tracing.request(scope["method"], scope["headers"]) as span:
            try:
                await self._app(scope, receive, send_named)
            except ClientDisconnect:
                status = _CLIENT_LEFT
            except Exception as error:  # whatever it is, the next request must find the service well
                response = internal_error(Request(scope), error)
                if status == 0:
                    await response(scope, receive, send_named)
            finally:
                self._record(scope, state, status or _CLIENT_LEFT, time.perf_counter() - started, span)

    def _record(self, scope: Scope, state: dict[str, Any], status: int, seconds: float, span: Span | None) -> None:
        # Paths come from the caller and are unbounded; the route that matched is not.
        route: str | None = getattr(scope.get("route"), "path", None)
        model, version = state.get("model", ""), state.get("version", "")
        refused = state.get("refused")
        self._metrics.count_request(
            route=route or "unmatched", model=model, version=version, status=status, seconds=seconds, refused=refused
        )
        if self._access_log is not None:
            self._access_log.write(
                request_id=state["request_id"],
                client=scope["client"][0] if scope.get("client") else None,
                method=scope["method"],
                route=route,
                path=scope["path"],
                status=status,
                seconds=seconds,
                model=model or None,
                version=version or None,
                rows=state.get("rows"),
                refused=refused,
            )
        if span is not None:
            _describe(span, scope["method"], route, status, state)


def _describe(span: Span, method: str, route: str | None, status: int, state: dict[str, Any]) -> None:
    """OpenTelemetry's own names for what HTTP has, and ours for the rest."""
    from opentelemetry.trace import StatusCode

    known = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "dubio.request_id": state["request_id"],
        "dubio.model": state.get("model"),
        "dubio.version": state.get("version"),
        "dubio.rows": state.get("rows"),
        "error.type": state.get("refused"),
    }
    span.set_attributes({name: value for name, value in known.items() if value is not None})
    span.update_name(f"{method} {route}" if route else method)
    if status >= _SERVER_ERROR:
        span.set_status(StatusCode.ERROR)
