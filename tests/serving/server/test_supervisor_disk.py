"""Workers whose shared folder is on a real disk that is too small, or full after the start."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.server.test_supervisor import ask, rows, workers

MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && echo mounted && exec sleep 600'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes disks of a size: file systems in memory that only a process of their own has mounted."""
    mounting: list[subprocess.Popen[str]] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", MOUNT, size, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        mounting.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "mounted\n":
            pytest.skip(f"no file system can be mounted here: {process.stderr.read().strip()}")
        return Path(f"/proc/{process.pid}/root{folder}")

    if shutil.which("unshare") is None:
        pytest.skip("there is no command `unshare`")
    yield make
    for process in mounting:
        process.kill()
        process.communicate()


def fill(disk: Path) -> Path:
    path = disk / "full"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_folder_without_room_ends_the_start_and_is_named(command: Any, numbers_checkpoint: Path, disk: Any) -> None:
    folder = disk("300k")
    code, line = command.refused(str(numbers_checkpoint), "--workers", "2", "--port", "0", TMPDIR=str(folder))
    assert code == 1
    assert f"in {folder}/dubio-" in line
    assert "No space left on device" in line
    assert "TMPDIR" in line
    assert not list(folder.iterdir())


@pytest.mark.slow
def test_a_disk_that_is_full_ends_nobody_and_loses_no_count(
    command: Any, numbers_checkpoint: Path, disk: Any, tmp_path: Path
) -> None:
    folder = disk("4m")
    with command.started(str(numbers_checkpoint), "--workers", "2", TMPDIR=str(folder)) as service:
        url, first = service.url, workers(service)
        full = fill(folder)
        ask(url, 20)
        # Of metrics that nobody has counted yet.
        for path in ("/nothing", "/v1/models/none/predict", *(f"/v2/models/row/versions/{i}" for i in range(2, 9))):
            assert httpx.get(url + path).status_code in (404, 405), path
        assert httpx.post(f"{url}/v1/predict", json={"instances": [[1e9] * 5] * 40}).status_code == 200
        assert {rows(url) for _ in range(6)} == {60.0}
        assert [worker.is_running() for worker in first] == [True, True]

        first[0].kill()  # its place is taken while there is no room
        service.wait_for("Worker")
        while service.log.count("Started server process") < 3:
            assert "cannot" not in service.log.lower()
            time.sleep(0.05)
        ask(url, 20)
        assert {rows(url) for _ in range(6)} == {80.0}
        full.unlink()
        ask(url, 20)
        assert {rows(url) for _ in range(6)} == {100.0}
        pids = {sample.labels["worker"] for sample in memory(url)}
        assert pids == {"0", "1"}
        assert "Traceback" not in service.log


def memory(url: str) -> list[Any]:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return [sample for each in families for sample in each.samples if sample.name == "process_resident_memory_bytes"]
