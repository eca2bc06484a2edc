"""The web page at `/` and the files it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.responses import Response

from dubio.serving.http.auth import OPEN, ScopedRouter

# The page loads nothing from elsewhere and runs no inline script: a class name cannot turn into code.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_FILES = {
    "/": ("page.html", "text/html"),
    "/static/page.css": ("page.css", "text/css"),
    "/static/page.js": ("page.js", "text/javascript"),
    "/static/explanation.js": ("explanation.js", "text/javascript"),
}


def build() -> ScopedRouter:
    """The page's routes; its files are read once, here."""
    router = ScopedRouter(OPEN, include_in_schema=False)
    for path, (name, media_type) in _FILES.items():
        content = files("dubio.serving.web").joinpath(name).read_bytes()
        router.add_api_route(path, _file(content, media_type), methods=["GET"])
    return router


def _file(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
