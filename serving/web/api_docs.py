"""The API's description as a page, `/docs` and `/redoc`. All it needs comes from here: it works without a network."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path

from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import OPEN, ScopedRouter
from dubio.serving.web.description import Description

_TITLE = "Dubio"
# Addresses are relative: a proxy may publish the service under a path of its own.
_DESCRIPTION = "openapi.json"
# Browsers ask for an icon otherwise, and the framework's pages for one from elsewhere.
_NO_ICON = "data:,"
# Nothing comes from elsewhere or goes there, and of the scripts in the pages themselves the frameworks' own alone run.
_POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
# What it says depends on the key.
_PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key"}
_FILES = {
    "static/swagger-ui-bundle.js": "text/javascript",
    "static/swagger-ui.css": "text/css",
    "static/redoc.standalone.js": "text/javascript",
}


def build(api: Description) -> ScopedRouter:
    """The routes of the description, and of its pages; it has examples for whoever may predict."""
    router = ScopedRouter(OPEN, include_in_schema=False)

    swagger = get_swagger_ui_html(
        openapi_url=_DESCRIPTION,
        title=_TITLE,
        swagger_js_url="static/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui.css",
        swagger_favicon_url=_NO_ICON,
    )
    redoc = get_redoc_html(
        openapi_url=_DESCRIPTION,
        title=_TITLE,
        redoc_js_url="static/redoc.standalone.js",
        redoc_favicon_url=_NO_ICON,
        with_google_fonts=False,
    )
    for path, page in {"/docs": swagger, "/redoc": redoc}.items():
        router.add_api_route(path, _page(bytes(page.body)), methods=["GET"])

    @router.get(f"/{_DESCRIPTION}")
    async def description(request: Request) -> Response:
        content = await api.read(examples=Scope.INFER in request.state.scopes)
        return Response(content, media_type="application/json", headers=_PRIVATE)

    for path, media_type in _FILES.items():
        with as_file(files("fastapi_offline").joinpath("static", path.rsplit("/", 1)[1])) as file:
            router.add_api_route(f"/{path}", _file(file, media_type), methods=["GET"])
    return router


def _page(content: bytes) -> Callable[[], Awaitable[Response]]:
    scripts = [b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(content)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in scripts)
    headers = {"Content-Security-Policy": _POLICY.format(scripts=allowed), "X-Content-Type-Options": "nosniff"}

    async def answer() -> Response:
        return Response(content, media_type="text/html", headers=headers)

    return answer


def _file(path: Path, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return FileResponse(path, media_type=media_type)

    return answer
