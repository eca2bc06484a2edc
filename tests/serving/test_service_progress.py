"""A prediction that does not end: who is told, when, and what becomes of the process."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.server.test_supervisor import workers
from tests.serving.test_lifecycle import ask, wait_at

HEALTH = ("/v2/health/ready", "/v2/models/gated/ready", "/v2/models/row/ready", "/v2/health/live")


@pytest.fixture
def gated(gated_checkpoint: Path, numbers_checkpoint: Path, gate: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Arguments and environment of a service of two models, of which one stands still while the gate is there."""
    arguments = (str(gated_checkpoint), str(numbers_checkpoint), "--trusted", "gated_networks")
    return arguments, {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}


def statuses(client: httpx.Client) -> list[int]:
    return [client.get(path).status_code for path in HEALTH]


def wait_for(client: httpx.Client, expected: list[int]) -> None:
    deadline = time.monotonic() + 30
    while (now := statuses(client)) != expected:
        assert time.monotonic() < deadline, now
        time.sleep(0.02)


def test_a_model_that_hangs_is_not_ready_then_the_process_not_alive_and_both_recover(
    command: Any, gated: Any, gate: Path
) -> None:
    arguments, environment = gated
    limits = {"DUBIO_TIMEOUT_SECONDS": "0.5", "DUBIO_STALLED_SECONDS": "0.6", "DUBIO_HUNG_SECONDS": "4"}
    with (
        command.started(*arguments, **environment, **limits) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        assert statuses(client) == [200, 200, 200, 200]
        gate.touch()
        answers: list[Any] = []
        asking = ask(service.url, answers)
        wait_at(gate)
        wait_for(client, [503, 503, 200, 200])
        assert "has been computed for" in client.get("/v2/health/ready").json()["error"]
        assert "model 'gated'" in client.get("/v2/models/gated/ready").json()["error"]
        until = time.monotonic() + 30
        while (row := client.post("/v1/models/row/predict", json={"instances": [[1, 2, 3, 4, 5]]})).status_code == 504:
            assert time.monotonic() < until  # the machine held it up, for half a second
        assert row.status_code == 200  # the other one answers all the while
        wait_for(client, [503, 503, 200, 503])
        assert "restart" in client.get("/v2/health/live").json()["error"]
        asking.join()
        assert answers[0].status_code == 504
        gate.unlink()
        wait_for(client, [200, 200, 200, 200])


def test_a_batch_that_takes_no_longer_than_the_timeout_is_none_that_hangs(command: Any, gated: Any, gate: Path) -> None:
    arguments, environment = gated
    with (
        command.started(*arguments, **environment) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
    ):
        gate.touch()
        answers: list[Any] = []
        asking = ask(service.url, answers)
        wait_at(gate)
        assert statuses(client) == [200, 200, 200, 200]
        gate.unlink()
        asking.join()
        assert answers[0].status_code == 200


@pytest.mark.slow
def test_one_of_several_workers_that_hangs_is_replaced(command: Any, gated: Any, gate: Path) -> None:
    arguments, environment = gated
    limits = {"DUBIO_TIMEOUT_SECONDS": "0.5", "DUBIO_HUNG_SECONDS": "1", "DUBIO_GRACE_SECONDS": "2"}
    with command.started(*arguments, "--workers", "2", **environment, **limits) as service:
        before = {worker.pid for worker in workers(service)}
        gate.touch()
        asking: list[threading.Thread] = [ask(service.url, [])]
        wait_at(gate)
        service.wait_for("this worker ends")
        service.wait_for("ended with exit code 1")
        gate.unlink()
        while service.log.count("Started server process") < 3:
            time.sleep(0.05)
        assert len(before & {worker.pid for worker in workers(service)}) == 1
        asking[0].join()
        answers: list[Any] = []
        ask(service.url, answers).join()
        assert answers[0].status_code == 200
