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
_INDEX = "page.html"
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def build() -> ScopedRouter:
    """The page's routes; its files are read once, here."""
    router = ScopedRouter(OPEN, include_in_schema=False)
    folder = files("dubio.serving.web").joinpath("static")
    for below, directory in (("", folder), ("vendor/", folder.joinpath("vendor"))):
        for file in directory.iterdir():
            media_type = _MEDIA_TYPES.get(file.name.rpartition(".")[2])
            if media_type is not None:  # an editor may have left more, and libraries come with their licences
                path = "/" if file.name == _INDEX else f"/static/{below}{file.name}"
                router.add_api_route(path, _file(file.read_bytes(), media_type), methods=["GET"])
    return router


def _file(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
