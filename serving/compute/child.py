"""The process that computes. Started by `dubio.serving.compute.process` alone; it ends when its parent does."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from dubio.models import trial
from dubio.serving.compute import frames
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

        prepare, engine = pickle.loads(frames.receive(control))
        prepare()
        while True:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not descriptors:
                break
            threading.Thread(target=_serve, args=(socket.socket(fileno=descriptors[0]), engine), daemon=True).start()
    os._exit(0)  # whatever is computed, nobody waits for it


def _serve(connection: socket.socket, engine: object) -> None:
    """Answer one call after the other."""
    with connection, suppress(EOFError, OSError):
        while True:
            connection.sendall(frames.frame(_answer(engine, frames.receive(connection))))


def _answer(engine: object, request: bytes) -> bytes:
    from dubio.serving.compute import outcome

    try:
        method, arguments = pickle.loads(request)
        threading.current_thread().name = f"dubio-{method}"
        return outcome.pack(getattr(engine, method)(*arguments))
    except Exception as error:  # the parent raises it
        return outcome.pack_error(error)
    except BaseException as error:  # a thread that ends would tell nobody, and this is not the parent's end
        return outcome.pack_error(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
