from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from dubio.models import child_process

CHILD = """
import json, os, socket, sys
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
with socket.socket(fileno=int(sys.argv[1])) as connection:
    told = {name: os.environ[name] for name in names} | {"path": sys.path}
    told |= {"group": os.getpgid(0), "session": os.getsid(0)}
    connection.sendall(json.dumps(told).encode())
"""


@pytest.mark.parametrize("confined", [True, False])
def test_it_is_told_its_socket_and_may_import_what_we_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confined: bool
):
    (tmp_path / "told.py").write_text(CHILD)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    ours, theirs = socket.socketpair()
    with ours, child_process.start("told", theirs.fileno(), confined=confined) as process:
        theirs.close()
        with ours.makefile("rb") as answer:
            told = json.loads(answer.read())
        assert process.wait(30) == 0
        assert (process.stderr is not None) == confined
    assert (told["OMP_NUM_THREADS"], told["CUDA_VISIBLE_DEVICES"]) == (("1", "") if confined else ("3", "5"))
    assert (told["group"], told["session"]) == (process.pid, os.getsid(0))
    assert {os.path.abspath(each) for each in sys.path} <= set(told["path"])
