"""The end of the service under load: what was asked is answered, and the keep-alive that the settings promise."""

from __future__ import annotations

import signal
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.serving.callers import BODY, HEADERS, Callers
from tests.serving.command import Command

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("round_", range(3))
def test_without_a_drain_nothing_that_was_asked_is_lost(
    numbers_checkpoint: Path, workers: int, round_: int, command: Command
) -> None:
    with command.started(str(numbers_checkpoint), "--workers", str(workers)) as running:
        callers = Callers(running.url, 16)
        time.sleep(1 + 0.03 * round_)
        assert running.finish(signal.SIGTERM) == 0
        callers.join()
    assert callers.wrong == []
    assert callers.answered > 16


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_is_obeyed_under_load(numbers_checkpoint: Path, workers: int, command: Command) -> None:
    with command.started(str(numbers_checkpoint), "--workers", str(workers), DUBIO_DRAIN_SECONDS="20") as running:
        callers = Callers(running.url, 16)
        time.sleep(0.5)
        children = psutil.Process(running.process.pid).children(recursive=True)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("Stopping")
        assert running.finish(signal.SIGTERM) == 128 + signal.SIGTERM
        callers.join()
        psutil.wait_procs(children, timeout=10)
        assert not any(child.is_running() for child in children)


def test_idle_connections_outlive_common_load_balancers_patience(numbers_checkpoint: Path, command: Command) -> None:
    """By default: theirs is 60 s, and a connection that the service closed first is an error to their clients."""
    with command.started(str(numbers_checkpoint)) as running:
        connection = HTTPConnection("127.0.0.1", urlsplit(running.url).port, timeout=30)
        connection.connect()
        own = connection.sock.getsockname()
        for pause in (0, 66):
            time.sleep(pause)
            connection.request("POST", "/v1/predict", BODY, HEADERS)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert connection.sock.getsockname() == own
        connection.close()
