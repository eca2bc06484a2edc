"""The socket that the service listens on: bound once, before anything slow, and shared by all workers."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Network, ip_network

BACKLOG = 2048
"""Most connections that wait to be accepted."""
# Linux's option for a filter of what arrives at a socket, which Python does not name; where this is not its number on
# some processor, or a sandbox knows no filters, none is set.
_SO_ATTACH_FILTER = 26
# For the TCP header: if of the flags SYN and ACK the first alone is set, keep 0 bytes of it, otherwise all.
_NO_SYN = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def bind(host: str, port: int) -> socket.socket:
    """Hold an address; connections are refused until a server listens, ready to answer.

    Args:
        host: Name or address, of version 4 or 6.
        port: 0 for any free one.

    Raises:
        OSError: The address is taken, unknown or forbidden.
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


def hold(host: str, port: int) -> socket.socket:
    """Hold an address that others are to listen on: processes of the same user, once each says so of its own socket.

    Args:
        host: Name or address, of version 4 or 6.
        port: 0 for any free one.

    Raises:
        OSError: The address is taken, unknown or forbidden.
    """
    held = bind(host, port)
    # Only from now on, or an address that another service holds in this way would be shared with it.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def address(host: str, port: int) -> str:
    """Write them as one."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url(bound: socket.socket) -> str:
    """Tell where a browser finds it."""
    return f"http://{address(*bound.getsockname()[:2])}"


def as_peers(networks: Iterable[str]) -> list[str]:
    """Networks as peers show them: on a socket for both versions, one of version 4 is `::ffff:10.0.0.1`."""
    peers = []
    for network in map(ip_network, networks):
        peers.append(str(network))
        if isinstance(network, IPv4Network):
            peers.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return peers


def stop_connecting(bound: socket.socket) -> None:
    """Let nobody begin to connect, in any process that has the socket; connections that were begun are made.

    Who connects between the last `accept` and `close` believes to be connected, and is reset. Now they get no answer,
    and when they try again a second later they are refused, or let in by the next service at this address. Elsewhere
    than on Linux nothing is done.

    Source: Linux, Documentation/networking/filter.rst, classic BPF.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    with suppress(OSError):
        bound.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )


def accept_waiting(bound: socket.socket) -> list[socket.socket]:
    """Accept connections that were made already; they would be reset, and what was sent on them lost."""
    accepted: list[socket.socket] = []
    bound.setblocking(False)
    try:
        while len(accepted) < BACKLOG:
            accepted.append(bound.accept()[0])
    except OSError:  # none is left, or the process is out of what a connection needs
        return accepted
    return accepted
