"""The calls that carry the traffic, answered ahead of the framework's layers.

Around a small prediction, the layers of FastAPI (routers, exit stacks, a body limit, telemetry) take as long as
reading, batching and writing it. They stay for everything else and for the description: the fast path is the endpoint
of a FastAPI route, reached by that route's own pattern, so both ways lead to the same function.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from dubio.serving.http import problem_details


class FastPath:
    """ASGI middleware that calls the endpoints of some routes itself.

    Args:
        app: Answers everything else.
        routes: Those of them that take a POST are called directly; their endpoints take the request and the parts of
            the path as text, and return a response.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, APIRoute) and route.methods == {"POST"}]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for route in self._routes:
                if match := route.path_regex.match(scope["path"]):
                    scope["route"] = route  # by which the request is counted
                    request = Request(scope, receive)
                    try:
                        response = await route.endpoint(request, **match.groupdict())
                    except problem_details.EXPECTED as error:
                        response = problem_details.answer(request, error)
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)
