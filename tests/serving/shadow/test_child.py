"""The process of a shadow ends with its parent."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_it_ends_when_nobody_is_there_any_more() -> None:
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "dubio.serving.shadow.child", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
    )
    theirs.close()
    ours.close()
    _, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (0, b"")
