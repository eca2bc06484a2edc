"""Debian's Prometheus beside `dubio-serve`, both as they are run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving.conftest import checkpoint, command

__all__ = ["checkpoint", "command"]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "rules.yml"
CONFIG = ROOT / "docker" / "prometheus" / "prometheus.yml"


def program(name: str) -> str:
    """One of Prometheus's programs."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here: apt-get install prometheus")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool")


def near_config(folder: Path, target: str, key: str) -> Path:
    """The configuration of `docker/`, for a service on this machine, looked at every second.

    Args:
        folder: Where it is written.
        target: Address of the service.
        key: Which Prometheus sends.
    """
    (folder / "key.txt").write_text(f"{key}\n")
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(CONFIG.parent / name) for name in config["rule_files"]]
    [scrape] = config["scrape_configs"]
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": [target]}]
    scrape["authorization"]["credentials_file"] = str(folder / "key.txt")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs.

    Attributes:
        client: Of its address.
    """

    client: httpx.Client

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        response = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert response["status"] == "success", (parameters, response)
        return response["data"]

    def values(self, query: str) -> list[float]:
        """What a query gives now, a number a series."""
        return [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]

    def wait_for(self, query: str) -> list[float]:
        """Until a query gives something, which it may not where the last look at the service took too long."""
        until = time.monotonic() + 60
        while not (values := self.values(query)):
            assert time.monotonic() < until, query
            time.sleep(0.2)
        return values


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def started(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Run it on a free port of this machine, its data in `folder`, until the context ends."""
    for _ in range(3):  # another program may take the port before it does
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        client = httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60)
        with running(config, folder, address) as process, client:
            while not answers(client) and process.poll() is None:
                time.sleep(0.1)
            if process.poll() is None:
                yield Prometheus(client)
                return
    raise AssertionError((folder / "log").read_text())


@contextmanager
def running(config: Path, folder: Path, address: str) -> Iterator[subprocess.Popen]:
    arguments = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
