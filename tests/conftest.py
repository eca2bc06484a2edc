"""Fixtures for every test: global state is put back, and a test that leaves some of it changed fails."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Set by Lightning's seeding and by libraries when they are first imported: put back, but no test's fault.
UNBLAMED = (
    "PL_",
    "KMP_",
    "TORCHINDUCTOR_",
    "TRITON_",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTORCH_",
    "PYTEST_",
    "TF_",
    "TENSORBOARD_",
    "_RJEM_",
    "PYTHONBREAKPOINT",
    "RAY_",
    "_MLFLOW_",
)
# A trial in a process of its own goes before every load, but in the tests only where it is what they are about.
os.environ.setdefault("DUBIO_LOAD_TRIAL", "none")
# Its thread would look for a network, and draw from Python's random numbers while a test watches these.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# No test fails for the time that it took, on a machine that does something else.
settings.register_profile("dubio", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dubio")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One torch thread a worker: pytest-xdist already keeps the cores busy."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put global state back and fail the test that changed it.

    Random state and deterministic algorithms are put back without a word: training sets them by design.
    """
    environment = dict(os.environ)
    settings = _settings()
    random_state = torch.get_rng_state()
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))  # a test draws the same every time
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()

    yield

    leaks = [f"environment variable {name}" for name in _changed(environment, dict(os.environ)) if _blamed(name)]
    leaks += [name for name in settings if settings[name] != _settings()[name]]
    _restore(environment)
    torch.set_num_threads(int(settings["torch.num_threads"]))
    torch.set_default_dtype(settings["torch.default_dtype"])
    torch.set_grad_enabled(settings["torch.grad_enabled"])
    torch.set_rng_state(random_state)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    if leaks:
        pytest.fail(f"The test leaves global state changed: {', '.join(leaks)}.", pytrace=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of extra data sets that DUBIO_TEST_DATA names; tests that need it skip without one."""
    folder = os.environ.get("DUBIO_TEST_DATA")
    if not folder:
        pytest.skip("DUBIO_TEST_DATA names no folder of extra data sets")
    if not Path(folder).is_dir():
        pytest.fail(f"DUBIO_TEST_DATA is '{folder}', which is not a folder; unset it or correct it.", pytrace=False)
    return Path(folder)


def _settings() -> dict[str, object]:
    return {
        "torch.num_threads": torch.get_num_threads(),
        "torch.default_dtype": torch.get_default_dtype(),
        "torch.grad_enabled": torch.is_grad_enabled(),
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _blamed(name: str) -> bool:
    return not name.startswith(UNBLAMED)


def _restore(environment: dict[str, str]) -> None:
    for name in _changed(environment, dict(os.environ)):
        if name in environment:
            os.environ[name] = environment[name]
        else:
            del os.environ[name]
