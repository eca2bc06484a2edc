"""The API's description as a page, `/docs` and `/redoc`. All it needs comes from here: it works without a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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

    @router.get("/docs")
    async def swagger() -> Response:
        return get_swagger_ui_html(
            openapi_url=_DESCRIPTION,
            title=_TITLE,
            swagger_js_url="static/swagger-ui-bundle.js",
            swagger_css_url="static/swagger-ui.css",
            swagger_favicon_url=_NO_ICON,
        )

    @router.get("/redoc")
    async def redoc() -> Response:
        return get_redoc_html(
            openapi_url=_DESCRIPTION,
            title=_TITLE,
            redoc_js_url="static/redoc.standalone.js",
            redoc_favicon_url=_NO_ICON,
            with_google_fonts=False,
        )

    @router.get(f"/{_DESCRIPTION}")
    async def description(request: Request) -> Response:
        content = await api.read(examples=Scope.INFER in request.state.scopes)
        return Response(content, media_type="application/json", headers=_PRIVATE)

    for path, media_type in _FILES.items():
        with as_file(files("fastapi_offline").joinpath("static", path.rsplit("/", 1)[1])) as file:
            router.add_api_route(f"/{path}", _file(file, media_type), methods=["GET"])
    return router


def _file(path: Path, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return FileResponse(path, media_type=media_type)

    return answer
