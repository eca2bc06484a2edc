"""A worker: one of several processes that serve. Its supervisor talks to it over a pipe, in JSON."""

from __future__ import annotations

import json
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socket

from dubio.serving.compute.process import prepare
from dubio.serving.errors import ProcessUnavailable
from dubio.serving.lifecycle import HANDLED, Lifecycle, end, tell
from dubio.serving.server.runtime_dir import hold
from dubio.serving.settings import Settings
from dubio.serving.telemetry.log import configure_log

CANNOT_START = 2
STOP, RELOAD = b"stop", b"reload"


def main(number: int, settings: Settings, bound: socket, pipe: Connection, folder: Path) -> None:
    """Serve until the supervisor says stop, or is gone.

    Args:
        number: That of this worker.
        settings: What to serve.
        bound: Socket to listen on, as all workers do.
        pipe: To the supervisor.
        folder: Folder that the workers share.
    """
    lifecycle = Lifecycle()
    # Ctrl-C reaches every process of a terminal, and service managers may signal all of a service: neither must look
    # like a second signal, so only the supervisor, which counts them, ends a worker at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: lifecycle.stop(everyone=False))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    hold(folder)
    threading.Thread(target=_listen, args=(pipe, lifecycle), daemon=True).start()

    try:
        process = prepare(settings)
    except ProcessUnavailable as refused:
        pipe.send_bytes(json.dumps({"error": str(refused)}).encode())
        end(CANNOT_START)

    # torch takes seconds to import; until here a signal would have ended a worker that obeys none yet.
    from dubio.serving.server import server

    def started(models: list[str]) -> None:
        pipe.send_bytes(json.dumps({"models": models}).encode())

    configure_log(settings.log_level, worker=number)
    error = server.run(settings, bound, lifecycle, started=started, folder=folder, worker=number, process=process)
    if error is not None:
        pipe.send_bytes(json.dumps({"error": error}).encode())
        end(CANNOT_START)
    end(0)


def _listen(pipe: Connection, lifecycle: Lifecycle) -> None:
    """Wait for the supervisor to say stop or to vanish, which closes the pipe."""
    try:
        while pipe.recv_bytes() == RELOAD:
            lifecycle.reload()
    except (EOFError, OSError):
        tell("the supervisor is gone; stopping.")
    lifecycle.stop()
