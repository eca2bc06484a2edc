"""What was acknowledged as stored is there after a kill -9 under load."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

STRANGER = [[[200.0] * 8] * 8]


def load(url: str, requests: int, callers: int, acknowledged: list[str], enough: threading.Event, most: int) -> None:
    """Sends flagged rows from several threads until the service is gone, and notes those that it said are stored."""

    def call(caller: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in range(requests // callers):
                name = f"c{caller}-{number}"
                try:
                    answer = client.post(
                        "/v1/predict",
                        json={"instances": [STRANGER]},
                        headers={"Dubio-Store": "wait", "X-Request-Id": name},
                    )
                except httpx.TransportError:
                    return
                if answer.headers.get("dubio-stored") == "true":
                    acknowledged.append(name)
                    if len(acknowledged) >= most:
                        enough.set()

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    enough.set()


def kill_under_load(command: Any, arguments: tuple[str, ...], requests: int) -> list[str]:
    """The requests that were acknowledged by a service that is killed, all of its processes, once half of them were."""
    acknowledged: list[str] = []
    enough = threading.Event()
    with command.started(*arguments) as service:
        given = (service.url, requests, 16, acknowledged, enough, requests // 2)
        callers = threading.Thread(target=load, args=given)
        callers.start()
        assert enough.wait(300)
        processes = psutil.Process(service.process.pid).children(recursive=True)
        for process in [*processes, service.process]:
            process.kill()
        callers.join()
        service.process.wait()
    assert requests // 2 <= len(acknowledged) < requests
    return acknowledged


def stored(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        rows = [name for (name,) in connection.execute("SELECT request_id FROM answers")]
    connection.close()
    return rows


def test_none_that_was_acknowledged_is_lost(command: Any, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    acknowledged = kill_under_load(command, (f"bars={checkpoint}", "--store", str(path)), 600)
    rows = stored(path)
    assert set(acknowledged) <= set(rows)
    assert len(rows) == len(set(rows))


@pytest.mark.slow
def test_of_ten_thousand_none_is_lost_and_the_next_process_goes_on(
    command: Any, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "store.sqlite"
    arguments = (f"bars={checkpoint}", "--store", str(path), "--workers", "2")
    acknowledged = kill_under_load(command, arguments, 20_000)
    assert len(acknowledged) >= 10_000
    rows = stored(path)
    assert set(acknowledged) <= set(rows)
    assert len(rows) == len(set(rows))
    with command.started(*arguments) as service:
        found = httpx.get(f"{service.url}/v1/reviews", params={"request_id": acknowledged[-1]}).json()
        assert [review["request_id"] for review in found["reviews"]] == acknowledged[-1:]
        more = {"Dubio-Store": "wait"}
        answer = httpx.post(f"{service.url}/v1/predict", json={"instances": [STRANGER]}, headers=more)
        assert answer.headers["dubio-stored"] == "true"
        assert len(stored(path)) == len(rows) + 1
