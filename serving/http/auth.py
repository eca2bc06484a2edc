"""Who may call what. One table knows every route; what is not in it needs an administrator's key.

Routes do nothing for this themselves: `Gate` stands before all of them.

Without any key, everything is open except what administrators do, which is off. Once there is a key, everything is
closed except what is listed as open: health checks, and the page and the API's description, which hold nothing secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from dubio.serving.errors import Forbidden, Unauthorized
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import ApiKeys, Scope

_OPEN = None
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"

# By a route's path; whatever is in braces stands for one segment.
ROUTES: Mapping[str, Scope | None] = {
    "/": _OPEN,
    "/static/page.css": _OPEN,
    "/static/page.js": _OPEN,
    "/docs": _OPEN,
    "/redoc": _OPEN,
    "/static/swagger-ui-bundle.js": _OPEN,
    "/static/swagger-ui.css": _OPEN,
    "/static/redoc.standalone.js": _OPEN,
    "/openapi.json": _OPEN,
    "/v2/health/live": _OPEN,
    "/v2/health/ready": _OPEN,
    "/metrics": Scope.METRICS,
    "/v1/models": Scope.INFER,
    "/v1/models/{name}": Scope.INFER,
    "/v1/models/{name}/predict": Scope.INFER,
    "/v1/predict": Scope.INFER,
    "/v2": Scope.INFER,
    "/v2/": Scope.INFER,
    "/v2/models/stats": Scope.INFER,
    **{
        root + leaf: Scope.INFER
        for root in (_MODEL, _VERSION)
        for leaf in ("", "/ready", "/config", "/stats", "/infer")
    },
    "/v2/repository/index": Scope.ADMIN,
    "/v2/repository/models/{name}/load": Scope.ADMIN,
    "/v2/repository/models/{name}/unload": Scope.ADMIN,
}

# Also when a path below it is not listed, and even without any key.
_ADMIN_PREFIX = "/v2/repository"

_TEMPLATES = {
    scope: re.compile(
        "|".join(
            "[^/]+".join(re.escape(part) for part in re.split(r"\{\w+\}", path))
            for path, needed in ROUTES.items()
            if needed is scope and "{" in path
        )
    )
    for scope in (Scope.INFER, Scope.ADMIN)
}


class Unlisted:
    """The scope of a path that no route in the table has."""


def scope_of(path: str) -> Scope | type[Unlisted] | None:
    """The scope that `path` needs; None when it is open to all."""
    if path in ROUTES:
        return ROUTES[path]
    if path.startswith(_ADMIN_PREFIX):
        return Scope.ADMIN
    return next((scope for scope, template in _TEMPLATES.items() if template.fullmatch(path)), Unlisted)


class Gate:
    """ASGI middleware that lets a request pass, or answers 401 or 403."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Guard `app` with `keys`."""
        self._app = app
        self._keys = keys

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
        needed = scope_of(scope["path"])
        if needed is None:
            return
        if needed is Scope.ADMIN and not self._keys.grants(Scope.ADMIN):
            raise Forbidden(
                "Administration is off: it needs an API key with the scope admin, and the service was given none; "
                "start it with one in DUBIO_API_KEYS_FILE."
            )
        if not self._keys.any:
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
        if needed is Unlisted and Scope.ADMIN not in granted:
            raise Forbidden("There is nothing here that this API key may use; /docs lists what there is.")
        if isinstance(needed, Scope) and needed not in granted:
            raise Forbidden(
                f"Expected an API key with the scope {needed}, but this one has {', '.join(sorted(granted))} only; "
                "use another key."
            )


def _presented(scope: Connection) -> bytes | None:
    """The key a request carries; one that carries two different ones has none that counts."""
    found = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":  # a proxy in front may use other schemes for itself
                found.add(key.strip())
    if not found:
        return None
    return found.pop() if len(found) == 1 else b""


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI `document` which of its operations want a key, so that its page can send one."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        scope = scope_of(path)
        for operation in operations.values() if scope is not None else ():
            operation["security"] = [{"key": []}]
            wanted = f"Needs an API key with the scope {getattr(scope, 'value', 'admin')}."
            operation["description"] = " ".join(filter(None, [operation.get("description"), wanted]))
    return document
