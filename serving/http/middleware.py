"""The layers around the framework: the first observes every request, the next refuse those of other origins and without
a key, the last shortens some."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dubio.serving.errors import CrossOrigin, Forbidden, Misdirected, Unauthorized, UnsupportedContentType
from dubio.serving.http import problem_details
from dubio.serving.http.allowed_hosts import EVERY, AllowedHosts
from dubio.serving.http.api_keys import ApiKeys
from dubio.serving.http.api_keys import Scope as KeyScope
from dubio.serving.http.auth import ADMINISTRATION_IS_OFF, OPEN, ScopedRouter, identify, presented, require
from dubio.serving.http.request import name_request
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.telemetry.access_log import RequestRecord
from dubio.serving.telemetry.telemetry import Telemetry

# nginx's word for a caller that left before the answer; nobody receives it, it is only counted.
CALLER_LEFT = 499
# What uvloop says of a connection that broke in this very round of the loop.
_CLOSED = "handler is closed"
# What needs no key while there is none.
_EVERYBODY: Final = frozenset({KeyScope.INFER, KeyScope.REVIEW, KeyScope.METRICS})
_UNLISTED: Final = "unlisted"
# An IPv6 address with a zone; a trusted proxy may name its client by anything.
_LONGEST_CLIENT = 64
# Probes name the address or whatever their operator likes, and learn nothing that a page could use.
_HEALTH = "/v2/health/"
# Neither changes anything.
_SAFE = ("GET", "OPTIONS")
# A browser asks before it sends these to another origin; plain text and forms it sends unasked.
_CONTENT_TYPES = ("application/json", "application/octet-stream")


@dataclass
class Observer:
    """The outermost layer: names, times, counts, logs and traces every request, and answers what nobody caught.

    Routes say in `request.state` what they know of a request: `model` and `version` of a loaded model, and `rows`.

    Attributes:
        app: The whole application.
        telemetry: Is told of every request.
        lifecycle: Once it is stopping, every answer tells the client to close the connection.
    """

    app: ASGIApp
    telemetry: Telemetry
    lifecycle: Lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = name_request(dict(scope["headers"]).get(b"x-request-id", b""))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if self.lifecycle.stopping:  # else a request sent later on it would meet a closed door
                    message["headers"].append((b"connection", b"close"))
            try:
                await send(message)
            except RuntimeError as error:
                if _CLOSED not in str(error):
                    raise
                while (await receive())["type"] != "http.disconnect":  # else the server would miss an answer
                    pass
                raise ClientDisconnect from error

        with self.telemetry.span(scope["method"], scope["headers"]) as span:
            try:
                await self.app(scope, receive, send_named)
            except ClientDisconnect:
                status = CALLER_LEFT
            except Exception as error:  # whatever it is, the next request must find the service well
                response = problem_details.internal_error(Request(scope), error)
                if status == 0:
                    await response(scope, receive, send_named)
            finally:
                record = _record(scope, state, status or CALLER_LEFT, time.perf_counter() - started)
                self.telemetry.count_request(record, span)


def _record(scope: Scope, state: dict[str, Any], status: int, seconds: float) -> RequestRecord:
    return RequestRecord(
        request_id=state["request_id"],
        method=scope["method"],
        path=scope["path"],
        status=status,
        seconds=seconds,
        client=scope["client"][0][:_LONGEST_CLIENT] if scope.get("client") else None,
        route=getattr(scope.get("route"), "path", None),
        model=state.get("model"),
        version=state.get("version"),
        rows=state.get("rows"),
        refused=state.get("refused"),
    )


class RequestLine:
    """Gives every layer behind it a request's first line as the routes know it.

    HEAD is what GET is, without the body; and what a proxy did not remove of the path is removed.

    Args:
        app: Behind it.
        root_path: Path under which a proxy publishes the service; None if it does under its own.
    """

    def __init__(self, app: ASGIApp, root_path: str | None) -> None:
        self._app = app
        self._root = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        published = self._root is not None and scope["type"] == "http" and self._is_below_root(scope["path"])
        if scope["type"] != "http" or not (published or scope["method"] == "HEAD"):
            await self._app(scope, receive, send)
            return
        known = dict(scope)
        if published:
            known["path"] = scope["path"].removeprefix(self._root)
        app = self._app if known["path"] else RedirectResponse(f"{self._root}/")  # where relative addresses are right

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["method"] == "HEAD":
            known["method"] = "GET"
        try:
            await app(known, receive, send_head if scope["method"] == "HEAD" else send)
        finally:
            if "route" in known:  # by which the request is counted
                scope["route"] = known["route"]

    def _is_below_root(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")


class SameOriginMiddleware:
    """Refuses what a page of another origin has a visitor's browser send, with 421, 403 or 415.

    A service on this machine or in its network is out of a stranger's reach, but not out of that of a stranger's page.
    What a browser says of a request by itself, no script can change; other clients say nothing of the kind.

    Args:
        app: Behind it.
        hosts: The names of the service.
        origins: Those whose pages may call it, `*` for all.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, origins: Collection[str]) -> None:
        self._app = app
        self._hosts, self._origins = hosts, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_HEALTH):
            try:
                self._check(scope)
            except (Misdirected, CrossOrigin, UnsupportedContentType) as error:
                await problem_details.answer(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = value
            if name == b"host" and value and not self._hosts.allow(value.decode("latin-1")):
                raise Misdirected(
                    f"Expected a request to a name of this service, but its Host is {value[:100].decode('latin-1')!r}; "
                    "ask its address or localhost, or start it with this name as --allowed-host."
                )
        self._check_origin(scope["method"], headers)
        if scope["method"] not in _SAFE and (given := headers.get(b"content-type")):
            kind = given.partition(b";")[0].strip().lower().decode("latin-1")
            if kind and kind not in _CONTENT_TYPES and not (kind.startswith("application/") and kind.endswith("+json")):
                raise UnsupportedContentType(
                    f"Expected a body of application/json or application/octet-stream, but its Content-Type is "
                    f"{kind[:100]!r}; send the header `Content-Type: application/json`."
                )

    def _check_origin(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and (EVERY in self._origins or origin in self._origins):
            return
        site = headers.get(b"sec-fetch-site")
        if site is None:  # no browser, an old one, or one that trusts no address without TLS
            foreign = bool(origin) and method not in _SAFE and not self._is_own(origin, headers)
        else:
            foreign = site not in (b"same-origin", b"none") and not _follows_link(method, headers)
        if foreign:
            raise CrossOrigin(
                f"Expected a page of this service or of an origin that may call it, but this request comes from "
                f"{origin[:100] or 'a page of another origin'!r}; start the service with that origin as --cors-origin."
            )

    def _is_own(self, origin: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a page of the service itself asks; a proxy may have put another Host in place of its name."""
        address = origin.partition("://")[2]  # of an origin nothing follows it
        return address.encode("latin-1") == headers.get(b"host") or self._hosts.is_named(address)


def _follows_link(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether somebody follows a link from another page, which cannot read what it leads to."""
    how = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return method == "GET" and how == (b"navigate", b"document")


class FastPath:
    """The innermost layer: calls the endpoints of some routes itself, ahead of the framework.

    Around a small prediction, the layers of FastAPI (routers, exit stacks, a body limit, telemetry) take as long as
    reading, batching and writing it. They stay for everything else and for the description; both ways lead to the same
    function, by the same pattern.

    Args:
        app: Answers everything else.
        routes: Those of them that take a POST are called directly; their endpoints take the request and the parts of
            the path as text, and return a response.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, APIRoute) and route.methods == {"POST"}]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class AuthMiddleware:
    """Lets a request pass, or answers 401 or 403. Routes find in `request.state.scopes` what their caller may do.

    Args:
        app: Behind it.
        keys: That are known.
        routers: Every router of `app`, in its order.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, routers: Sequence[ScopedRouter]) -> None:
        self._app = app
        self._keys, self._any_key = keys, keys.any  # which does not change with the keys
        self._routes = [(route, router.required_scope) for router in routers for route in router.routes]
        # What is below them is off for everybody without such a key, a route or not.
        shared = {router.prefix for router in routers if router.required_scope is not KeyScope.ADMIN}
        self._admin_prefixes = tuple({router.prefix for router in routers} - shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (Unauthorized, Forbidden) as error:
                await problem_details.answer(Request(scope), error)(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            raise Forbidden("Expected an HTTP request; this service speaks nothing else.")
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if scope["path"].startswith(self._admin_prefixes) and not self._keys.grants(KeyScope.ADMIN):
            raise Forbidden(ADMINISTRATION_IS_OFF)
        state = scope.setdefault("state", {})
        if not self._any_key:
            state["scopes"] = _EVERYBODY
            return
        needed = self._needed(scope)
        if needed is OPEN:
            state["scopes"] = self._keys.scopes(presented(scope["headers"]) or b"") or frozenset()
            return
        granted = identify(self._keys, scope["headers"])
        if needed == _UNLISTED:
            if KeyScope.ADMIN not in granted:
                raise Forbidden("There is nothing here that this API key may use; /docs lists what there is.")
        else:
            require(needed, granted)
        state["scopes"] = granted

    def _needed(self, scope: Scope) -> KeyScope | Literal["unlisted"] | None:
        """The scope of the route that the framework will choose."""
        partial: KeyScope | Literal["unlisted"] | None = _UNLISTED
        for route, needed in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                scope["route"] = route  # by which the request is counted, also if it is refused
                return needed
            if match is Match.PARTIAL and partial == _UNLISTED:  # the path of a route, but not its method
                partial = needed
        return partial
