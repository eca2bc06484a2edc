"""Who may call what. Each router says which scope its routes need; what no router has needs an administrator's key.

Routes do nothing for this themselves: the middleware stands before all of them.

Without any key, everything is open except what administrators do, which is off. Once there is a key, everything is
closed except what is declared open: health checks, and the page and the API's description, which hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from dubio.serving.errors import Forbidden, Unauthorized
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import ApiKeys, Scope

OPEN: Final = None
_UNLISTED: Final = "unlisted"


class ScopedRouter(APIRouter):
    """Routes that one scope opens.

    Args:
        required_scope: That an API key must have; `OPEN` for everybody.
        options: As `APIRouter` takes them.
    """

    def __init__(self, required_scope: Scope | None, **options: Any) -> None:
        super().__init__(**options)
        self.required_scope = required_scope


class AuthMiddleware:
    """Lets a request pass, or answers 401 or 403.

    Args:
        app: Behind it.
        keys: That are known.
        routers: Every router of `app`, in its order.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, routers: Sequence[ScopedRouter]) -> None:
        self._app = app
        self._keys = keys
        self._any_key = keys.any
        self._routes = [(route, router.required_scope) for router in routers for route in router.routes]
        # What is below them is off for everybody without such a key, a route or not.
        self._admin_prefixes = tuple(router.prefix for router in routers if router.required_scope is Scope.ADMIN)
        self._administration = keys.grants(Scope.ADMIN)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (Unauthorized, Forbidden) as error:
                await problem_details.answer(Request(scope), error)(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            raise Forbidden("Expected an HTTP request; this service speaks nothing else.")
        await self._app(scope, receive, send)

    def _check(self, scope: Connection) -> None:
        if scope["path"].startswith(self._admin_prefixes) and not self._administration:
            raise Forbidden(
                "Administration is off: it needs an API key with the scope admin, and the service was given none; "
                "start it with one in DUBIO_API_KEYS_FILE."
            )
        if not self._any_key:
            return
        needed = self._needed(scope)
        if needed is OPEN:
            return
        presented = _presented(scope)
        if presented is None:
            raise Unauthorized(
                "Expected an API key, but the request has none; send the header `Authorization: Bearer <key>` or "
                "`X-API-Key: <key>`."
            )
        granted = self._keys.scopes(presented)
        if granted is None:
            raise Unauthorized("Expected a valid API key, but the one that was sent is not known; check it.")
        if needed == _UNLISTED:
            if Scope.ADMIN not in granted:
                raise Forbidden("There is nothing here that this API key may use; /docs lists what there is.")
        elif needed not in granted:
            raise Forbidden(
                f"Expected an API key with the scope {needed}, but this one has {', '.join(sorted(granted))} only; "
                "use another key."
            )

    def _needed(self, scope: Connection) -> Scope | Literal["unlisted"] | None:
        """The scope of the route that the framework will choose."""
        partial: Scope | Literal["unlisted"] | None = _UNLISTED
        for route, needed in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return needed
            if match is Match.PARTIAL and partial == _UNLISTED:  # the path of a route, but not its method
                partial = needed
        return partial


def _presented(scope: Connection) -> bytes | None:
    """The key a request carries; one that carries two different ones has none that counts."""
    keys = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            keys.add(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":  # a proxy in front may use other schemes for itself
                keys.add(key.strip())
    if not keys:
        return None
    return keys.pop() if len(keys) == 1 else b""


def describe(document: dict[str, Any], routers: Iterable[ScopedRouter]) -> dict[str, Any]:
    """Add to an OpenAPI `document` which of its operations want a key, so that its page can send one."""
    scopes = {getattr(route, "path", ""): router.required_scope for router in routers for route in router.routes}
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        needed = scopes.get(path, Scope.ADMIN)
        for operation in operations.values() if needed is not OPEN else ():
            operation["security"] = [{"key": []}]
            wanted = f"Needs an API key with the scope {needed}."
            operation["description"] = " ".join(filter(None, [operation.get("description"), wanted]))
    return document
