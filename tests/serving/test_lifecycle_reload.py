"""SIGHUP: keys and models are read again, unless it says that the terminal is gone."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubio import models
from tests.serving.command import ROOT, Command
from tests.serving.test_lifecycle import ask, wait_at

OLD, NEW, ADMIN = ("old-key-0123456789", "new-key-0123456789", "admin-key-0123456789")


def put(path: Path, content: bytes) -> None:
    """In one piece, as the documentation asks for."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").rename(path)


def status(url: str, key: str, path: str = "/v1/models") -> int:
    return httpx.request("POST" if "repository" in path else "GET", url + path, headers={"X-API-Key": key}).status_code


def reloaded(service: Any, times: int, workers: int = 1) -> None:
    service.process.send_signal(signal.SIGHUP)
    while service.log.count("Reloaded; serving") < times * workers:
        assert service.process.poll() is None, service.log
        time.sleep(0.02)


def probabilities(url: str, image: np.ndarray) -> list[float]:
    answer = httpx.post(
        f"{url}/v1/models/bars/predict", json={"instances": [image.tolist()]}, headers={"X-API-Key": NEW}
    )
    return answer.json()["predictions"][0]["deterministic"]["probabilities"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_keys_and_models_are_read_again_and_what_is_wrong_changes_nothing(
    command: Any, checkpoint: Path, second_checkpoint: Path, bars: np.ndarray, tmp_path: Path, workers: int
) -> None:
    keys, model = tmp_path / "keys", tmp_path / "served" / "bars" / "1" / "model.ckpt"
    keys.write_text(f"infer:{OLD}\n")
    model.parent.mkdir(parents=True)
    put(model, checkpoint.read_bytes())
    arguments = ("--model-repository", str(tmp_path / "served"), "--api-keys-file", str(keys))
    with command.started(*arguments, "--workers", str(workers)) as service:
        url = service.url
        assert (status(url, OLD), status(url, NEW)) == (200, 401)
        assert status(url, ADMIN, "/v2/repository/index") == 403  # off

        put(keys, f"infer:{NEW}\nadmin:{ADMIN}\n".encode())
        put(model, second_checkpoint.read_bytes())
        reloaded(service, 1, workers)
        for _ in range(3 * workers):  # whichever worker is asked
            assert (status(url, OLD), status(url, NEW)) == (401, 200)
            assert status(url, ADMIN, "/v2/repository/index") == 200
            expected = models.load(second_checkpoint).predict(bars[:1]).probabilities[0]
            np.testing.assert_allclose(probabilities(url, bars[0]), expected, atol=1e-5)
        extensions = httpx.get(f"{url}/v2", headers={"X-API-Key": NEW}).json()["extensions"]
        assert ("model_repository" in extensions) == (workers == 1)

        put(keys, b"infer:short\n")
        put(model, b"no checkpoint")
        (tmp_path / "served" / "more" / "1").mkdir(parents=True)
        put(tmp_path / "served" / "more" / "1" / "model.ckpt", checkpoint.read_bytes())
        reloaded(service, 2, workers)
        assert "The keys stay as they were" in service.log
        assert "Cannot serve model bars version 1" in service.log
        assert "serving bars, more." in service.log
        assert status(url, NEW) == 200
        np.testing.assert_allclose(probabilities(url, bars[0]), expected, atol=1e-5)
        assert service.finish(signal.SIGTERM) == 0


def test_with_explicit_control_only_what_is_served_is_loaded_again(
    command: Any, checkpoint: Path, second_checkpoint: Path, bars: np.ndarray, tmp_path: Path
) -> None:
    other = tmp_path / "served" / "other" / "1" / "model.ckpt"
    other.parent.mkdir(parents=True)
    put(other, checkpoint.read_bytes())
    named = tmp_path / "bars.ckpt"
    put(named, checkpoint.read_bytes())
    arguments = (str(named), "--model-repository", str(tmp_path / "served"), "--model-control", "explicit")
    with command.started(*arguments) as service:
        put(named, second_checkpoint.read_bytes())
        reloaded(service, 1)
        assert "serving bars." in service.log
        expected = models.load(second_checkpoint).predict(bars[:1]).probabilities[0]
        np.testing.assert_allclose(probabilities(service.url, bars[0]), expected, atol=1e-5)


def test_a_signal_while_models_load_is_obeyed_afterwards(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    keys = tmp_path / "keys"
    keys.write_text(f"infer:{OLD}\n")
    gate.touch()
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks", "--api-keys-file", str(keys))
    with command.started(*arguments, wait=False, **environment) as service:
        wait_at(gate)
        put(keys, f"infer:{NEW}\n".encode())
        service.process.send_signal(signal.SIGHUP)
        gate.unlink()
        service.wait_for("Reloaded")
        assert (status(service.url, OLD), status(service.url, NEW)) == (401, 200)


class Terminal:
    """A terminal in which a service runs, as in a window."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            # What runs the tests may ignore hang-ups, as `nohup` does, which a service would obey.
            ["env", "--default-signal=HUP", "setsid", "--ctty", *Command()._line((*arguments, "--port", "0"))],
            cwd=ROOT,
            env=Command()._environment(environment),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, words: str) -> None:
        while words not in self.shown:
            self.shown += os.read(self._master, 1 << 16).decode()

    def close(self) -> None:
        os.close(self._master)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no command `setsid`")
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_terminal_that_is_closed_ends_the_service_once_it_has_answered(
    gated_checkpoint: Path, gate: Path, workers: str
) -> None:
    environment = {"PYTHONPATH": str(gated_checkpoint.parent), "DUBIO_TEST_GATE": str(gate)}
    arguments = (str(gated_checkpoint), "--trusted", "gated_networks", "--workers", workers)
    terminal = Terminal(*arguments, **environment)
    try:
        terminal.wait_for("Serving")
        url = re.search(r"Serving .* on (http://\S+)", terminal.shown)[1]
        terminal.process.send_signal(signal.SIGHUP)  # by hand, in a window that stays open
        terminal.wait_for("Reloaded; serving gated.")
        gate.touch()
        answers: list[Any] = []
        asking: threading.Thread = ask(url, answers)
        wait_at(gate)
        terminal.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until it takes no more connections
            try:
                httpx.get(f"{url}/v2/health/live", timeout=30)
            except httpx.TransportError:
                break
            time.sleep(0.02)
        gate.unlink()
        asking.join()
        assert answers[0].status_code == 200
        assert terminal.process.wait(30) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
