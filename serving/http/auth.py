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

from dubio.serving.errors import Forbidden
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import Scope

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
