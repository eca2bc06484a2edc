"""Messages arrive whole, however they are cut on their way."""

from __future__ import annotations

import socket
import threading

import pytest

from dubio.serving.compute import frames


@pytest.mark.parametrize("message", [b"", b"one", bytes(range(256)) * 40_000])
def test_a_message_arrives_as_it_was(message: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=ours.sendall, args=(frames.frame(message) + frames.frame(b"next"),))
        sender.start()
        assert frames.receive(theirs) == message
        assert frames.receive(theirs) == b"next"
        sender.join()


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", frames.frame(b"whole")[:-1]])
def test_an_end_before_the_end_of_a_message_is_told(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(sent)
        with pytest.raises(EOFError):
            frames.receive(theirs)


def test_the_head_says_how_long_the_message_is() -> None:
    head = frames.frame(bytes(300))[: frames.HEAD]
    assert frames.length(head) == 300
    assert frames.length(bytearray(b"\1" + bytes(7))) == 1 << 56
