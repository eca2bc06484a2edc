from __future__ import annotations

import socket

import pytest

from serving.processes import listening


def test_a_bound_socket_holds_the_port_but_answers_nobody_yet() -> None:
    with listening.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert listening.url(bound) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        bound.listen()
        with pytest.raises(OSError, match="in use"):
            listening.bind("127.0.0.1", port)


def test_addresses_of_version_6_are_bracketed() -> None:
    try:
        bound = listening.bind("::1", 0)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with bound:
        assert listening.url(bound) == f"http://[::1]:{bound.getsockname()[1]}"
