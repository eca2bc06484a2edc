"""Who may call what. Each router says which scope its routes need; what no router has needs an administrator's key.

Routes do nothing for this themselves: `AuthMiddleware` stands before all of them.

Without any key, everything is open except what administrators do, which is off. Once there is a key, everything is
closed except what is declared open: health checks, and the page and the API's description, which hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request

from dubio.serving.errors import Forbidden, Unauthorized
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import ApiKeys, Scope

OPEN: Final = None
ADMINISTRATION_IS_OFF: Final = (
    "Administration is off: it needs an API key with the scope admin, and the service was given none; start it with "
    "one in DUBIO_API_KEYS_FILE."
)


class ScopedRouter(APIRouter):
    """Routes that one scope opens.

    Args:
        required_scope: That an API key must have; `OPEN` for everybody.
        options: As `APIRouter` takes them.
    """

    def __init__(self, required_scope: Scope | None, **options: Any) -> None:
        guards = [Depends(_refuse_all_but_administrators)] if required_scope is Scope.ADMIN else []
        super().__init__(dependencies=guards, **options)
        self.required_scope = required_scope


async def _refuse_all_but_administrators(request: Request) -> None:
    # While there is no key at all, everything that begins as their routes do is open, but not these.
    if Scope.ADMIN not in request.state.scopes:
        raise Forbidden(ADMINISTRATION_IS_OFF)


def identify(keys: ApiKeys, headers: Iterable[tuple[bytes, bytes]]) -> frozenset[Scope]:
    """What the caller may do who sent these headers.

    Args:
        keys: That are known.
        headers: With names in lower case.

    Raises:
        Unauthorized: They hold no key that is known.
    """
    key = presented(headers)
    if key is None:
        raise Unauthorized(
            "Expected an API key, but the request has none; send the header `Authorization: Bearer <key>` or "
            "`X-API-Key: <key>`."
        )
    granted = keys.scopes(key)
    if granted is None:
        raise Unauthorized("Expected a valid API key, but the one that was sent is not known; check it.")
    return granted


def require(needed: Scope, granted: frozenset[Scope]) -> None:
    """Check that a key reaches so far.

    Raises:
        Forbidden: It does not.
    """
    if needed not in granted:
        raise Forbidden(
            f"Expected an API key with the scope {needed}, but this one has {', '.join(sorted(granted))} only; "
            "use another key."
        )


def presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key a request carries; one that carries two different ones has none that counts."""
    keys = set()
    for name, value in headers:
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
    """Add to an OpenAPI `document` which of its operations want a key, where it goes, and how one is refused."""
    scopes = {
        (getattr(route, "path", ""), method.lower()): router.required_scope
        for router in routers
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
    }
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needed = scopes.get((path, method), Scope.ADMIN)
            if needed is OPEN:
                continue
            operation["security"] = [{"bearer": []}, {"header": []}]
            operation["responses"] |= problem_details.describe(path, 401, 403)
            wanted = f"Needs an API key with the scope {needed}."
            operation["description"] = " ".join(filter(None, [operation.get("description"), wanted]))
    return document
