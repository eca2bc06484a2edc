"""schemathesis, with every check that it has, against what the service says of itself in its OpenAPI description."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dubio.serving.settings import Settings

KEY = "end-to-end-key-0123456789"
HEADER = {"X-API-Key": KEY}
CONFIG = Path(__file__).with_name("schemathesis.toml")
UNLOAD = "/unload$"


@pytest.fixture(scope="module")
def service(
    serve: Callable,
    numbers_checkpoint: Path,
    table_checkpoint: Path,
    text_checkpoint: Path,
    pixels_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """A server with a model of each kind of input, where every route is open to the key."""
    paths = (numbers_checkpoint, table_checkpoint, text_checkpoint, pixels_checkpoint)
    given = Settings(
        models=tuple(map(str, paths)),
        model_repository=tmp_path_factory.mktemp("repository"),
        api_keys=f"infer,review,admin,metrics:{KEY}",  # type: ignore[arg-type]
        torch_threads=1,
        store=tmp_path_factory.mktemp("store") / "store.sqlite",
    )
    with serve(given) as base:
        yield base


def run(url: str, *arguments: str) -> str:
    """What schemathesis says, once it found nothing."""
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG, "run", f"{url}/openapi.json"]
    options = ["--checks", "all", "--seed", "1", "--generation-database", "none", "--no-color", *arguments]
    with tempfile.TemporaryDirectory() as folder:  # where it is run, it leaves a cache
        done = subprocess.run(
            [*command, *options],
            cwd=folder,
            env={**os.environ, "DUBIO_TEST_KEY": KEY},
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def count_tested(said: str) -> int:
    """How many operations were tried, of those that were chosen."""
    [(chosen, all_of_them)] = re.findall(r"Selected: (\d+)/(\d+)", said)
    [tried] = re.findall(r"Tested: (\d+)", said)
    assert int(tried) == int(chosen) <= int(all_of_them)
    return int(tried)


def count_operations(url: str) -> int:
    return sum(len(methods) for methods in httpx.get(f"{url}/openapi.json").json()["paths"].values())


def test_each_example_and_each_bound_of_the_calls_that_predict(service: str) -> None:
    said = run(service, "--phases", "examples,coverage", "--include-path-regex", "predict$|/infer$")
    assert count_tested(said) == 6


@pytest.mark.slow
def test_every_call_with_requests_right_and_wrong(service: str) -> None:
    said = run(service, "--phases", "examples,coverage,fuzzing", "-n", "100", "--exclude-path-regex", UNLOAD)
    assert count_tested(said) == count_operations(service) - 1
    good = {"instances": [[1, 2, 3, 4, 5]]}
    assert httpx.post(f"{service}/v1/predict", json=good, headers=HEADER).status_code == 200
    # Last: once it has found the models, nothing is left to ask.
    assert count_tested(run(service, "--phases", "coverage,fuzzing", "-n", "20", "--include-path-regex", UNLOAD)) == 1
