"""A service whose predictions are computed in a process of their own: the same answers, and one end for both."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.serving.command import Command


def ask(url: str, rows: np.ndarray, **parameters: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/predict", json={"instances": rows.tolist(), "parameters": parameters}, timeout=60)


def process_memory(url: str) -> list[dict[str, str]]:
    """The labels of the processes whose memory is shown."""
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if "process_resident_memory_bytes" in line]
    return [line.partition(" ")[0] for line in lines if not line.startswith("#")]


def test_the_answers_are_those_of_a_thread(command: Command, checkpoint: Path, bars: np.ndarray) -> None:
    answers = []
    for where in ("process", "thread"):
        with command.started(str(checkpoint), "--predict-in", where, "--strategy", "loop") as service:
            apart = service.computing.pid != service.process.pid
            assert apart == (where == "process")
            assert any('process="compute"' in line for line in process_memory(service.url)) == apart
            asked = ({}, {"samples": "auto"}, {"samples": 5}, {"explain": True})
            answers.append([ask(service.url, bars[:9], **each).json()["predictions"] for each in asked])
            assert ask(service.url, bars[:, :, :3]).status_code == 422
            assert service.finish(signal.SIGTERM) == 0
    assert answers[0] == answers[1]


@pytest.mark.parametrize("asked", [True, False])
def test_when_it_is_killed_the_service_says_so_and_ends(
    command: Command, checkpoint: Path, bars: np.ndarray, asked: bool
) -> None:
    given = ("--predict-in", "process", "--strategy", "loop", "--drain-seconds", "5")
    with command.started(str(checkpoint), *given) as service:
        assert ask(service.url, bars).status_code == 200
        service.computing.kill()
        if asked:
            refused = ask(service.url, bars)
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:dubio:problem:computation-lost")
            assert refused.headers["Retry-After"] == "5"
            assert refused.json()["detail"].startswith(
                "The process that computes ended with SIGKILL, as where memory runs out, so the service's "
            )
        service.wait_for("so this process ends")  # after its drain
        ready = httpx.get(f"{service.url}/v2/health/ready")
        assert ready.status_code == 503
        assert service.process.wait(30) == 1
        assert (
            "The process that computes ended with SIGKILL, as where memory runs out, so this process ends."
            in service.log
        )
        assert "Traceback" not in service.log


def test_among_several_workers_another_one_takes_its_place(
    command: Command, checkpoint: Path, bars: np.ndarray
) -> None:
    given = ("--predict-in", "process", "--strategy", "loop", "--workers", "2")
    with command.started(str(checkpoint), *given) as service:
        children = psutil.Process(service.process.pid).children(recursive=True)
        apart = [each for each in children if "dubio.serving.compute.child" in each.cmdline()]
        assert len(apart) == 2
        labels = process_memory(service.url)
        assert sum('process="compute"' in each for each in labels) == 2
        assert len(labels) == 4
        apart[0].kill()
        service.wait_for("another one starts")
        answers = [ask(service.url, bars) for _ in range(20)]
        assert {answer.status_code for answer in answers} <= {200, 503}  # 503 of the one that ends
        assert sum(answer.status_code == 200 for answer in answers) >= 10
        assert service.finish(signal.SIGTERM) == 0
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in apart)


@pytest.mark.slow
def test_whoever_asks_while_it_is_killed_gets_an_answer_or_is_told(
    command: Command, checkpoint: Path, bars: np.ndarray
) -> None:
    statuses: list[int] = []

    def go_on(url: str) -> None:
        with httpx.Client(timeout=60) as client:
            try:
                while True:
                    answer = client.post(f"{url}/v1/predict", json={"instances": bars[:3].tolist()})
                    statuses.append(answer.status_code)
            except httpx.TransportError:  # it listens no more
                return

    with command.started(str(checkpoint), "--predict-in", "process", "--drain-seconds", "2") as service:
        threads = [threading.Thread(target=go_on, args=(service.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(statuses) < 200:
            assert service.process.poll() is None
        service.computing.kill()
        for thread in threads:
            thread.join()
        assert service.process.wait(30) == 1
    assert set(statuses) == {200, 503}
