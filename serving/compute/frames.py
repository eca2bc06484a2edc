"""Messages on a socket: eight bytes that say how long it is, then the message."""

from __future__ import annotations

import socket
import struct

_LENGTH = struct.Struct("!Q")
HEAD = _LENGTH.size
"""Bytes in front of a message."""
_PART = 1 << 20


def frame(message: bytes) -> bytes:
    """A message with its length in front."""
    return _LENGTH.pack(len(message)) + message


def length(head: bytes | bytearray) -> int:
    """How many bytes the message has behind a head."""
    return int(_LENGTH.unpack_from(head)[0])


def receive(connection: socket.socket) -> bytes:
    """Wait for a message.

    Raises:
        EOFError: The other side is gone.
        OSError: As a socket does.
    """
    return _read(connection, length(_read(connection, HEAD)))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, _PART))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
