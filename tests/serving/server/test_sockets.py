from __future__ import annotations

import socket

import pytest

from dubio.serving.server import sockets


def test_a_bound_socket_holds_the_port_but_answers_nobody_yet() -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert sockets.url(bound) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        bound.listen()
        with pytest.raises(OSError, match="in use"):
            sockets.bind("127.0.0.1", port)


def test_addresses_of_version_6_are_bracketed() -> None:
    try:
        bound = sockets.bind("::1", 0)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with bound:
        assert sockets.url(bound) == f"http://[::1]:{bound.getsockname()[1]}"


def test_what_waits_is_accepted_and_no_more() -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        bound.listen(sockets.BACKLOG)
        assert sockets.accept_waiting(bound) == []
        clients = [socket.create_connection(bound.getsockname()) for _ in range(3)]
        accepted = sockets.accept_waiting(bound)
        assert [each.getpeername() for each in accepted] == [client.getsockname() for client in clients]
        for each in (*clients, *accepted):
            each.close()
