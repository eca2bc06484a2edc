"""Who may call what. Each router says which scope its routes need; what no router has needs an administrator's key.

Routes do nothing for this themselves: `AuthMiddleware` stands before all of them.

Without any key, everything is open except what administrators do, which is off. Once there is a key, everything is
closed except what is declared open: health checks, and the page and the API's description, which hold nothing secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter

from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import Scope

OPEN: Final = None


class ScopedRouter(APIRouter):
    """Routes that one scope opens.

    Args:
        required_scope: That an API key must have; `OPEN` for everybody.
        options: As `APIRouter` takes them.
    """

    def __init__(self, required_scope: Scope | None, **options: Any) -> None:
        super().__init__(**options)
        self.required_scope = required_scope


def describe(document: dict[str, Any], routers: Iterable[ScopedRouter]) -> dict[str, Any]:
    """Add to an OpenAPI `document` which of its operations want a key, where it goes, and how one is refused."""
    scopes = {getattr(route, "path", ""): router.required_scope for router in routers for route in router.routes}
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        needed = scopes.get(path, Scope.ADMIN)
        for operation in operations.values() if needed is not OPEN else ():
            operation["security"] = [{"bearer": []}, {"header": []}]
            operation["responses"] |= problem_details.describe(path, 401, 403)
            wanted = f"Needs an API key with the scope {needed}."
            operation["description"] = " ".join(filter(None, [operation.get("description"), wanted]))
    return document
