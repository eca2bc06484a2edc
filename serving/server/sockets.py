"""The socket that the service listens on: bound once, before anything slow, and shared by all workers."""

from __future__ import annotations

import socket


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address but refuses connections until a server listens, ready to answer.

    Raises:
        OSError: the address is taken, unknown or forbidden.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def url(bound: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
