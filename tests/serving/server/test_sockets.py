from __future__ import annotations

import errno
import select
import socket
import sys

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


@pytest.mark.skipif(sys.platform != "linux", reason="done on Linux alone")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_at_the_end_nobody_begins_to_connect_and_who_did_is_heard(host: str) -> None:
    try:
        bound = sockets.bind(host, 0)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with bound, socket.socket(bound.family) as late:
        bound.listen(sockets.BACKLOG)
        early = socket.create_connection(bound.getsockname()[:2], timeout=10)
        sockets.stop_connecting(bound)
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(bound.getsockname()[:2])
        assert not select.select([], [late], [], 0.2)[1]  # neither connected nor refused
        [accepted] = sockets.accept_waiting(bound)
        bound.close()
        for one, other in ((early, accepted), (accepted, early)):
            one.sendall(b"asked")
            assert other.recv(5) == b"asked"
        accepted.close()
        early.close()
        assert select.select([], [late], [], 10)[1]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_what_waits_is_accepted_and_no_more() -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        bound.listen(sockets.BACKLOG)
        assert sockets.accept_waiting(bound) == []
        clients = [socket.create_connection(bound.getsockname()) for _ in range(3)]
        accepted = sockets.accept_waiting(bound)
        assert [each.getpeername() for each in accepted] == [client.getsockname() for client in clients]
        for each in (*clients, *accepted):
            each.close()
