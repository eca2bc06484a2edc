"""The outermost layer: names every request, times and counts it, and answers for what nobody else caught."""

from __future__ import annotations

import re
import time
import uuid

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from serving.problems import internal_error

# A caller's own id is taken only if it can go into a header and a log line as it is.
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
# nginx's word for a caller that left before the answer; nobody receives it, it is only counted.
_CLIENT_LEFT = 499


class Observer:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap `app`; requests are counted in `metrics`."""
        self._app = app
        self._metrics = metrics

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
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except Exception as error:  # whatever it is, the next request must find the service well
            response = internal_error(Request(scope), error)
            if status == 0:
                await response(scope, receive, send_named)
        finally:
            # Paths come from the caller and are unbounded; the route that matched is not.
            self._metrics.count_request(
                route=getattr(scope.get("route"), "path", "unmatched"),
                model=state.get("model", ""),
                status=status,
                seconds=time.perf_counter() - started,
            )
