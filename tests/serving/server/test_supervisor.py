from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

BODY = {"instances": [[1, 2, 3, 4, 5]]}


def workers(service: Any) -> list[psutil.Process]:
    """The processes that have the port open, without the one that supervises them."""
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def rows(url: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return sum(sample.value for sample in families["dubio_rows"].samples if sample.name == "dubio_rows_total")


def ask(url: str, times: int) -> None:
    """Each time on a connection of its own."""

    def post(_: int) -> int:
        return httpx.post(f"{url}/v1/predict", json=BODY, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(times))) == {200}


@pytest.mark.slow
def test_workers_share_the_port_count_together_and_are_replaced(
    command: Any, numbers_checkpoint: Path, tmp_path: Path
) -> None:
    with command.started(str(numbers_checkpoint), "--workers", "2", "--access-log", TMPDIR=str(tmp_path)) as service:
        url = service.url
        assert service.log.count("Started server process") == 2  # it serves once both do
        ask(url, 30)
        assert {rows(url) for _ in range(6)} == {30.0}  # whichever worker is asked
        first = workers(service)
        assert len(first) == 2

        first[0].suspend()
        ask(url, 20)  # whatever one worker does, the other one answers
        first[0].kill()
        service.wait_for("Worker")
        ask(url, 10)
        while service.log.count("Started server process") < 3:
            time.sleep(0.05)
        assert len(workers(service)) == 2
        assert rows(url) == 60
        ask(url, 10)
        assert {rows(url) for _ in range(6)} == {70.0}
        assert service.output.count('"route":"/v1/predict"') == 70

        refused = httpx.post(f"{url}/v2/repository/models/row/unload")
        assert refused.status_code == 403

        connections = [httpx.Client(base_url=url) for _ in range(2)]
        for client in connections:
            client.get("/v2/health/ready")  # idle connections do not hold up the end
        assert service.finish(signal.SIGTERM) == 0
        for client in connections:
            client.close()
        for process in first:
            assert not process.is_running()
    assert not list(tmp_path.glob("dubio-*"))


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_is_still_one_signal(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks", "--workers", "2")
    with command.started(*arguments, **environment, TMPDIR=str(tmp_path)) as service:
        gate.touch()
        statuses: list[int] = []
        url = service.url
        asking = threading.Thread(
            target=lambda: statuses.append(httpx.post(f"{url}/v1/predict", json=BODY, timeout=60).status_code)
        )
        asking.start()
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        for process in (*workers(service), psutil.Process(service.process.pid)):
            process.send_signal(signal.SIGINT)
        service.wait_for("Stopping 2 workers")
        for process in workers(service):  # as a service manager does that signals every process of a service
            process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        gate.unlink()
        asking.join()
        assert statuses == [200]
        assert service.finish() == 0


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once(command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks", "--workers", "2")
    gate.touch()  # the models never finish loading
    with command.started(*arguments, wait=False, **environment, TMPDIR=str(tmp_path)) as service:
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        children = workers(service)
        for child in children:
            child.suspend()  # so that the first signal cannot end them
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Stopping 2 workers")
        assert service.finish(signal.SIGTERM) == 128 + signal.SIGTERM
        assert not any(child.is_running() for child in children)
    assert not list(tmp_path.glob("dubio-*"))


@pytest.mark.slow
def test_a_signal_while_workers_load_is_a_clean_end(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    gate.touch()
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks", "--workers", "2")
    with command.started(*arguments, wait=False, **environment) as service:
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        assert service.finish(signal.SIGTERM) == 0


@pytest.mark.parametrize("kind", ["no such file", pytest.param("not calibrated", marks=pytest.mark.slow)])
def test_what_a_worker_cannot_serve_is_one_line_and_2(command: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    if kind == "not calibrated":
        path.write_bytes(b"PK\x03\x04nothing")
    arguments = (f"bad={path}", "--workers", "2", "--port", "0", "--log-level", "error")
    code, line = command.refused(*arguments, TMPDIR=str(tmp_path))
    assert code == 2
    assert str(path) in line
    assert not list(tmp_path.glob("dubio-*"))


@pytest.mark.slow
def test_a_replacement_that_cannot_start_ends_the_service_only_if_nobody_else_serves(
    command: Any, numbers_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "row.ckpt"
    path.write_bytes(numbers_checkpoint.read_bytes())
    with command.started(str(path), "--workers", "2") as service:
        url = service.url
        path.unlink()
        workers(service)[0].kill()
        service.wait_for("exit code 2 (")
        assert "no such file" in service.log
        service.wait_for("starts in 2 s")  # each time later
        ask(url, 5)
        for worker in workers(service):
            worker.kill()
        assert service.finish() == 2
        assert f"dubio-serve: {path}: no such file" in service.log
