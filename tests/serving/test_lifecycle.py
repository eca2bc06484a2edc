from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dubio.serving.lifecycle import Lifecycle
from tests.serving.callers import Callers


def ask(url: str, answers: list[httpx.Response | httpx.HTTPError]) -> threading.Thread:
    """Post one instance from a thread of its own."""

    def post() -> None:
        try:
            answers.append(httpx.post(f"{url}/v1/predict", json={"instances": [[1, 2, 3, 4, 5]]}, timeout=60))
        except httpx.HTTPError as error:
            answers.append(error)

    asking = threading.Thread(target=post)
    asking.start()
    return asking


def wait_at(gate: Path) -> None:
    while not gate.with_suffix(".waiting").exists():
        time.sleep(0.01)


@pytest.fixture
def gated(gated_checkpoint: Path, gate: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Arguments and environment of a service whose model stands still while the gate is there."""
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks")
    return arguments, {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}


def test_draining_is_not_ready_but_answers(command: Any, numbers_checkpoint: Path) -> None:
    with command.started(str(numbers_checkpoint), DUBIO_DRAIN_SECONDS="3") as service:
        url = service.url
        with httpx.Client(base_url=url) as client:
            assert client.get("/v2/health/ready").status_code == 200
            service.process.send_signal(signal.SIGTERM)
            service.wait_for("Stopping")
            ready = client.get("/v2/health/ready")
            assert ready.status_code == 503
            assert "stopping" in ready.json()["error"]
            assert ready.headers["connection"] == "close"
            assert client.get("/v2/health/live").status_code == 200
            answer = client.post("/v1/predict", json={"instances": [[1, 2, 3, 4, 5]]})
            assert answer.status_code == 200
        assert service.finish() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_while_it_drains_who_connects_is_answered_and_then_nobody_is(
    command: Any, numbers_checkpoint: Path, workers: str
) -> None:
    started = command.started(str(numbers_checkpoint), "--workers", workers, "--drain-seconds", "3")
    with started as service:
        asked = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Stopping")
        for _ in range(8):
            assert httpx.get(f"{service.url}/v2/health/live", timeout=2).status_code == 200
        assert time.monotonic() - asked < 3
        assert service.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/v2/health/live", timeout=10)


@pytest.mark.slow
def test_a_worker_that_ends_alone_leaves_the_door_open(command: Any, numbers_checkpoint: Path) -> None:
    with command.started(str(numbers_checkpoint), "--workers", "2") as service:
        [worker, *_] = [
            each for each in psutil.Process(service.process.pid).children() if "spawn_main" in " ".join(each.cmdline())
        ]
        worker.terminate()
        worker.wait(30)
        for _ in range(50):
            assert httpx.get(f"{service.url}/v2/health/live", timeout=0.9).status_code == 200
        assert service.finish(signal.SIGTERM) == 0


def test_what_was_asked_before_the_end_is_answered_without_a_drain(command: Any, numbers_checkpoint: Path) -> None:
    """Callers who ask without a pause, on connections that they keep and on new ones."""
    with command.started(str(numbers_checkpoint)) as service:
        callers = Callers(service.url, 8)
        until = time.monotonic() + 30
        while callers.answered <= 80:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert service.finish(signal.SIGTERM) == 0
        callers.join()
    assert callers.wrong == []


def test_a_second_signal_is_obeyed_at_once(command: Any, gated: Any, gate: Path) -> None:
    arguments, environment = gated
    with command.started(*arguments, **environment) as service:
        gate.touch()
        answers: list[Any] = []
        asking = ask(service.url, answers)
        wait_at(gate)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Stopping")
        assert service.finish(signal.SIGINT) == 128 + signal.SIGINT
        asking.join()
        assert isinstance(answers[0], httpx.HTTPError)


def test_the_end_of_the_grace_period_is_the_end(command: Any, gated: Any, gate: Path) -> None:
    arguments, environment = gated
    with command.started(*arguments, **environment, DUBIO_GRACE_SECONDS="1") as service:
        gate.touch()
        asking = ask(service.url, [])
        wait_at(gate)
        assert service.finish(signal.SIGTERM) == 1
        assert "grace period of 1 s is over" in service.log
        asking.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_models_load_is_a_clean_end(
    command: Any, gated: Any, gate: Path, number: signal.Signals
) -> None:
    arguments, environment = gated
    gate.touch()
    with command.started(*arguments, wait=False, **environment) as service:
        wait_at(gate)
        assert service.finish(number) == 0
        assert "Stopped before the models were loaded" in service.log


def test_stopping_happens_once_however_often_it_is_asked_for() -> None:
    async def run() -> tuple[int, bool]:
        lifecycle, closed = Lifecycle(), []
        lifecycle.serving(lambda: closed.append(True), lambda: None, drain=0, grace=60)
        threads = [threading.Thread(target=lifecycle.stop) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lifecycle.stop()
        await asyncio.sleep(0.05)
        return len(closed), lifecycle.stopping

    closed, stopping = asyncio.run(run())
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):
            timer.cancel()
    assert stopping
    assert closed == 1
