"""Which names of the service a request may be addressed to.

A page may let its own name point at any address (DNS rebinding); the browser then takes the service there for the
page's own. The request still names the page's host, by which it is known. An address cannot be pointed elsewhere.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

EVERY: Final = "*"

# A name or an address, in brackets if it is one of version 6, and a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]+))(?::[0-9]*)?\Z")
_KNOWN = 256


class AllowedHosts:
    """The names.

    Args:
        names: Besides this machine's own: host names, `*.example.org` for all below one, or `*` for all there are.
        bound: Name or address that the service listens on.
    """

    def __init__(self, names: Iterable[str], bound: str) -> None:
        self.named: frozenset[str] = frozenset(name.lower().rstrip(".") for name in names)
        own = {"localhost", "*.localhost", bound.lower()}
        if bound in ("0.0.0.0", "::"):
            own.add(socket.gethostname().lower())
        self._all = self.named | own
        self.allow = lru_cache(_KNOWN)(self._allow)

    def is_named(self, host: str) -> bool:
        """Whether one of the names that were given, but for `*`, is this one."""
        return _matches(_without_port(host) or "", self.named - {EVERY})

    def _allow(self, host: str) -> bool:
        """Whether a request whose header Host says this may be answered."""
        if EVERY in self._all:
            return True
        name = _without_port(host)
        return name is not None and (_is_address(name) or _matches(name, self._all))


def _without_port(host: str) -> str | None:
    match = _HOST.match(host.strip().lower())
    return match and (match[1] or match[2].rstrip("."))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]) and len(name) >= len(pattern))
        for pattern in patterns
    )
