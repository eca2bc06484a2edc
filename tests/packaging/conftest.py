"""What users install, and processes as they start them: far from the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Built:
    """A wheel and an sdist of the repository, the sdist's files, and the wheel that is built from those."""

    wheel: Path
    sdist: Path
    unpacked: Path
    rebuilt: Path


def _build(source: Path, target: Path, kind: str) -> Path:
    ran = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    (path,) = target.iterdir()
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    wheel, sdist = _build(ROOT, folder / "wheel", "wheel"), _build(ROOT, folder / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return Built(wheel, sdist, unpacked, _build(unpacked, folder / "rebuilt", "wheel"))


def call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A finished process; its streams are text."""
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@contextmanager
def serving(*command: str, cwd: Path) -> Iterator[str]:
    """The address of a running service, whose command line asks for any free port."""
    with subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as service:
        said = []
        try:
            for line in service.stdout:
                said.append(line)
                address = re.search(r"Serving .* on (http://\S+)", line)
                if address:
                    yield address[1]
                    break
            else:
                pytest.fail(f"The service did not start:\n{''.join(said)}")
        finally:
            service.terminate()
            service.communicate(timeout=60)
