"""The API's description as a page, `/docs` and `/redoc`. All it needs comes from here: it works without a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import FileResponse, JSONResponse, Response

from dubio.serving.http.auth import OPEN, ScopedRouter

_TITLE = "Dubio"
# Addresses are relative: a proxy may publish the service under a path of its own.
_DESCRIPTION = "openapi.json"
# Browsers ask for an icon otherwise, and the framework's pages for one from elsewhere.
_NO_ICON = "data:,"
_FILES = {
    "static/swagger-ui-bundle.js": "text/javascript",
    "static/swagger-ui.css": "text/css",
    "static/redoc.standalone.js": "text/javascript",
}


def build(describe: Callable[[], dict[str, Any]]) -> ScopedRouter:
    """The routes of the description that `describe` gives, and of its pages."""
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
    async def description() -> Response:
        return JSONResponse(describe())

    for path, media_type in _FILES.items():
        with as_file(files("fastapi_offline").joinpath("static", path.rsplit("/", 1)[1])) as file:
            router.add_api_route(f"/{path}", _file(file, media_type), methods=["GET"])
    return router


def _file(path: Path, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return FileResponse(path, media_type=media_type)

    return answer
