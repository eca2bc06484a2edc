"""The command as it is run: a process of its own."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "DUBIO_TORCH_THREADS": "1", **more}


def refused(*arguments: str, **more: str) -> tuple[int, str]:
    """Exit code and the one line of a command that cannot start."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("dubio-serve: ")
    return done.returncode, line


@contextmanager
def started(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A running service and its base URL, read from its start-up line."""
    process = subprocess.Popen(
        command(*arguments, "--port", "0"), cwd=ROOT, env=environment(**more), stderr=subprocess.PIPE, text=True
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Serving" in line:
                url = line.split()[-1]
                break
        else:
            pytest.fail("".join(lines))
        while not answers(url):
            time.sleep(0.02)
        yield process, url
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready").status_code == 200
    except httpx.ConnectError:
        return False


def test_it_serves_and_ctrl_c_is_a_clean_end(checkpoint: Path, numbers_checkpoint: Path) -> None:
    with started(f"first={checkpoint}", str(numbers_checkpoint)) as (process, url):
        models = httpx.get(f"{url}/v1/models").json()["models"]
        assert [model["name"] for model in models] == ["first", "row"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


def test_sigterm_lets_the_request_in_flight_finish_and_is_a_clean_end(gated_checkpoint: Path, gate: Path) -> None:
    more = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    with started(str(gated_checkpoint), "--trusted", "gated_networks", **more) as (process, url):
        gate.touch()
        found: list[httpx.Response] = []
        body = {"instances": [[1, 2, 3, 4, 5]]}
        asking = threading.Thread(target=lambda: found.append(httpx.post(f"{url}/v1/predict", json=body, timeout=60)))
        asking.start()
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while answers(url):  # it takes no new connections ...
            time.sleep(0.02)
        assert process.poll() is None  # ... but is not gone
        gate.unlink()
        asking.join()
        assert found[0].status_code == 200
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


def test_a_port_in_use_is_one_line_and_1(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused(str(checkpoint), "--port", str(port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in line


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("kind", ["missing", "truncated", "hostile", "folder", "not calibrated"])
def test_a_checkpoint_that_cannot_be_served_is_one_line_and_2(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    if kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:5000])
    elif kind == "hostile":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "folder":
        path.mkdir()
    elif kind == "not calibrated":
        torch.save({"state_dict": {}}, path)
    code, line = refused(f"bad={path}", "--port", "0")
    assert code == 2
    assert str(path) in line
    assert not (ROOT / "exploded").exists()


@pytest.mark.parametrize(
    ("arguments", "more", "complaint"),
    [
        ((), {}, "name at least one checkpoint"),
        (("a=x.ckpt", "a=y.ckpt", "--port", "0"), {}, "'a' names both"),
        (("a=x.ckpt", "--port", "70000"), {}, "setting port: "),
        (("a=x.ckpt",), {"DUBIO_MAX_ROWS": "many"}, "setting max_rows: "),
        (("a=x.ckpt", "--port", "0", "--device", "gpu"), {}, "Expected `device` to be one that torch can use"),
    ],
)
def test_wrong_arguments_are_one_line_and_2(arguments: tuple, more: dict, complaint: str) -> None:
    code, line = refused(*arguments, **more)
    assert code == 2
    assert complaint in line


def test_help_teaches() -> None:
    done = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    for taught in ["dubio-serve runs/digits_mlp/model.ckpt", "DUBIO_MODELS", "exit codes", "/docs"]:
        assert taught in done.stdout
