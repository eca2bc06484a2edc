"""The process that computes. Started by `dubio.serving.compute.process` alone; it ends when its parent does."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from dubio.models import trial
from dubio.serving.compute.process import PREPARE_TRIALS

# Loading and predicting take turns in Python; see `dubio.serving.server.server`.
_SWITCH_SECONDS = 0.001


def main(descriptor: int) -> NoReturn:
    """Host the object that the parent sends, and serve each connection that it hands over, until it is gone."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with suppress(EOFError, OSError), socket.socket(fileno=descriptor) as control:
        if control.recv(1) == PREPARE_TRIALS:
            trial.prepare()
        import torch  # noqa: F401 # which takes seconds, while the parent does the same

        with Connection(control.dup().detach()) as first:
            prepare, engine = pickle.loads(first.recv_bytes())
        prepare()
        while True:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not descriptors:
                break
            threading.Thread(target=_serve, args=(Connection(descriptors[0]), engine), daemon=True).start()
    os._exit(0)  # whatever is computed, nobody waits for it


def _serve(connection: Connection, engine: object) -> None:
    """Answer one call after the other."""
    with connection, suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_answer(engine, *pickle.loads(connection.recv_bytes())))


def _answer(engine: object, method: str, arguments: tuple[Any, ...]) -> bytes:
    from dubio.serving.compute import outcome

    threading.current_thread().name = f"dubio-{method}"
    try:
        return outcome.pack(getattr(engine, method)(*arguments))
    except Exception as error:  # the parent raises it
        return outcome.pack_error(error)


if __name__ == "__main__":
    main(int(sys.argv[1]))
