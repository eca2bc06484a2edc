"""Several workers behind one socket: starts them, replaces those that die, and ends with them. Loads no model.

uvicorn's own supervisor neither tells when all workers answer nor what one of them cannot serve. It waits no longer
before a second restart than before the first, ends all workers when one cannot start, and knows no second signal and no
deadline; its workers outlive it. tests/serving/server/test_supervisor.py and test_worker.py show that this one differs.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

from dubio.serving.errors import UnusableFolder
from dubio.serving.lifecycle import ENDED_BY, HANDLED, SIGNALS, Terminal, end
from dubio.serving.server import threads, worker
from dubio.serving.server.acceptor import ConnectionCounts
from dubio.serving.server.runtime_dir import runtime_dir
from dubio.serving.settings import Settings
from dubio.serving.telemetry.gauges import Gauges
from dubio.serving.telemetry.mmap_store import MmapStore

_log = logging.getLogger("dubio")

REFUSED_BY_SYSTEM = 1
# A worker that dies is replaced at once; one that keeps dying, ever more slowly.
_FIRST_BACK_OFF = 0.5
_LONGEST_BACK_OFF = 30.0
_HEALTHY_SECONDS = 60.0
# Beyond the grace period, which the workers keep themselves.
_PATIENCE_SECONDS = 1.0


@dataclass
class WorkerProcess:
    """One worker, started again when it dies."""

    number: int
    process: BaseProcess | None = None
    pipe: connection.Connection | None = None
    ready: bool = False
    error: str | None = None
    failures: int = 0
    began: float = 0.0
    due: float = 0.0
    connections: ConnectionCounts | None = None
    gauges: Gauges | None = None


class Supervisor:
    """Runs `settings.workers` workers until it is told to stop."""

    def __init__(self, settings: Settings, bound: socket.socket, *, started: Callable[[list[str]], None]) -> None:
        """Start nothing yet.

        Args:
            settings: What to serve, and by how many workers.
            bound: Socket that they listen on.
            started: Called with the models' names once every worker answers.
        """
        self._settings = threads.divide(settings)
        self._bound = bound
        self._started = started
        self._workers = [WorkerProcess(number) for number in range(settings.workers)]
        # spawn: torch's threads do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._announced = False
        self._signals: list[int] = []
        self._hung_up = False
        self._deadline: float | None = None
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def run(self) -> tuple[int, str | None]:
        """Serve until told to stop.

        Returns:
            The exit code, and what to tell the operator if the service could not start.
        """
        self._terminal = Terminal()
        for number in HANDLED:
            signal.signal(number, self._receive)
        with runtime_dir() as self._folder:
            try:
                self._allocate()
                while True:
                    if self._deadline is None:
                        self._start_due()
                    self._wait()
                    self._obey()
                    for child in self._workers:
                        self._look_after(child)
                    if (outcome := self._outcome()) is not None:
                        return outcome
            except UnusableFolder as error:
                return REFUSED_BY_SYSTEM, str(error)
            finally:
                self._kill()

    def _allocate(self) -> None:
        """Make the files in which the workers count, all of them: later on there may be no room any more."""
        for child in self._workers:
            MmapStore(self._folder, child.number)
            child.connections = ConnectionCounts(self._folder, len(self._workers), child.number)
            child.gauges = Gauges(self._folder, child.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number in SIGNALS:
            self._signals.append(number)
        else:
            self._hung_up = True
        os.write(self._waker, b"!")

    def _obey(self) -> None:
        if len(self._signals) > 1:
            self._kill()
            shutil.rmtree(self._folder)
            end(ENDED_BY + self._signals[-1], "Ended by a second signal; requests in flight are lost.")
        hung_up, self._hung_up = self._hung_up, False
        if self._deadline is not None:
            return
        if self._signals or (hung_up and self._terminal.gone):
            _log.info("Stopping %d workers.", len(self._workers))
            self._stop()
        elif hung_up:
            self._send(worker.RELOAD)

    def _stop(self) -> None:
        self._deadline = time.monotonic() + self._settings.grace_seconds + _PATIENCE_SECONDS
        self._bound.close()  # or clients would wait at a door behind which no worker is left
        self._send(worker.STOP)

    def _send(self, message: bytes) -> None:
        for child in self._workers:
            if child.pipe is not None:
                try:
                    child.pipe.send_bytes(message)
                except OSError:  # it has just died
                    continue

    def _start_due(self) -> None:
        """Start every worker that is not there and whose time has come."""
        for child in self._workers:
            if child.process is None and child.due <= time.monotonic():
                child.pipe, theirs = self._context.Pipe()
                child.process = self._context.Process(
                    target=worker.main,
                    args=(child.number, self._settings, self._bound, theirs, self._folder),
                    name=f"dubio-worker-{child.number}",
                    daemon=True,
                )
                child.ready, child.error, child.began = False, None, time.monotonic()
                # It gets no signal until it says that it can obey one. The tracker, which would be started now, would
                # let signals through.
                resource_tracker.ensure_running()
                signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
                try:
                    child.process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
                theirs.close()

    def _wait(self) -> None:
        """Wait until a worker has news, a signal comes, or something is due."""
        now = time.monotonic()
        times = [child.due - now for child in self._workers if child.process is None]
        if self._deadline is not None:
            times = [self._deadline - now]
        news: list[connection.Connection | int] = [self._wake]
        news += [child.process.sentinel for child in self._workers if child.process is not None]
        news += [child.pipe for child in self._workers if child.pipe is not None]
        if self._wake in connection.wait(news, max(0.0, min(times)) if times else None):
            os.read(self._wake, 64)

    def _look_after(self, child: WorkerProcess) -> None:
        if child.pipe is not None and child.pipe.poll():
            self._read(child, child.pipe)
        if child.process is None or child.process.exitcode is None:
            return
        if child.pipe is not None:
            child.pipe.close()
            child.pipe = None
        if self._deadline is not None:
            return
        code = child.process.exitcode
        child.process, child.ready = None, False
        if child.connections is not None and child.gauges is not None:
            child.connections.leave()  # until another one takes its place
            child.gauges.clear()
        if not self._announced:
            child.error = child.error or f"worker {child.number} died while it started, with exit code {code}."
            return
        healthy = time.monotonic() - child.began > _HEALTHY_SECONDS
        child.failures = 0 if healthy else child.failures + 1
        delay = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** (child.failures - 1)) if child.failures else 0.0
        child.due = time.monotonic() + delay
        why = f" ({child.error})" if child.error else ""
        _log.error("Worker %d ended with exit code %d%s; another one starts in %g s.", child.number, code, why, delay)

    def _read(self, child: WorkerProcess, pipe: connection.Connection) -> None:
        try:
            message = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):  # it is gone, as its exit code will tell
            pipe.close()
            child.pipe = None
            return
        child.error = message.get("error")
        child.ready = "models" in message
        if not self._announced and all(other.ready for other in self._workers):
            self._announced = True
            self._started(message["models"])

    def _outcome(self) -> tuple[int, str | None] | None:
        if self._deadline is not None:
            codes = [child.process.exitcode for child in self._workers if child.process is not None]
            if None not in codes:
                return (1 if any(codes) else 0), None
            return (1, None) if time.monotonic() > self._deadline else None
        errors = [child.error for child in self._workers if child.error is not None]
        # At first any error ends the service; later on only one that leaves nobody to serve.
        if errors and not (self._announced and any(child.ready for child in self._workers)):
            return worker.CANNOT_START, errors[0]
        return None

    def _kill(self) -> None:
        for child in self._workers:
            if child.process is not None and child.process.exitcode is None:
                child.process.kill()
                child.process.join()
