"""What pages of other origins may do with the service from a visitor's browser: nothing, unless CORS names them.

A service on this machine or in its network is out of a stranger's reach, but not out of that of a stranger's page. What
a browser says of a request by itself, no script can change; clients that are no browsers say nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dubio.serving.errors import CrossOrigin, Misdirected, UnsupportedContentType
from dubio.serving.http import problem_details
from dubio.serving.http.allowed_hosts import EVERY, AllowedHosts

# Probes name the address or whatever their operator likes, and learn nothing that a page could use.
_HEALTH = "/v2/health/"
# Neither changes anything.
_SAFE = ("GET", "OPTIONS")
# A browser asks before it sends these to another origin; plain text and forms it sends unasked.
_CONTENT_TYPES = ("application/json", "application/octet-stream")


class SameOriginMiddleware:
    """Lets a request pass, or answers 421, 403 or 415.

    Args:
        app: Behind it.
        hosts: The names of the service.
        origins: Those whose pages may call it, `*` for all.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, origins: Collection[str]) -> None:
        self._app = app
        self._hosts, self._origins = hosts, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_HEALTH):
            try:
                self._check(scope)
            except (Misdirected, CrossOrigin, UnsupportedContentType) as error:
                await problem_details.answer(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = value
            if name == b"host" and value and not self._hosts.allow(value.decode("latin-1")):
                raise Misdirected(
                    f"Expected a request to a name of this service, but its Host is {value[:100].decode('latin-1')!r}; "
                    "ask its address or localhost, or start it with this name as --allowed-host."
                )
        self._check_origin(scope["method"], headers)
        if scope["method"] not in _SAFE and (given := headers.get(b"content-type")):
            kind = given.partition(b";")[0].strip().lower().decode("latin-1")
            if kind and kind not in _CONTENT_TYPES and not (kind.startswith("application/") and kind.endswith("+json")):
                raise UnsupportedContentType(
                    f"Expected a body of application/json or application/octet-stream, but its Content-Type is "
                    f"{kind[:100]!r}; send the header `Content-Type: application/json`."
                )

    def _check_origin(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and (EVERY in self._origins or origin in self._origins):
            return
        site = headers.get(b"sec-fetch-site")
        if site is None:  # no browser, an old one, or one that trusts no address without TLS
            foreign = bool(origin) and method not in _SAFE and not self._is_own(origin, headers)
        else:
            foreign = site not in (b"same-origin", b"none") and not _follows_link(method, headers)
        if foreign:
            raise CrossOrigin(
                f"Expected a page of this service or of an origin that may call it, but this request comes from "
                f"{origin[:100] or 'a page of another origin'!r}; start the service with that origin as --cors-origin."
            )

    def _is_own(self, origin: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a page of the service itself asks; a proxy may have put another Host in place of its name."""
        address = urlsplit(origin).netloc
        return address.encode("latin-1") == headers.get(b"host") or self._hosts.is_named(address)


def _follows_link(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether somebody follows a link from another page, which cannot read what it leads to."""
    how = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return method == "GET" and how == (b"navigate", b"document")
