"""A service on a read-only file system, as containers have it, with and without a folder for temporary files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

# Makes all of it read-only for what follows, and for nobody else.
READ_ONLY = """
mount -o remount,ro,bind / || exit 77
for folder in /tmp /var/tmp /usr/tmp "$PWD"; do
    if [ -d "$folder" ]; then
        mount --bind "$folder" "$folder" && mount -o remount,ro,bind "$folder" || exit 77
    fi
done
exec "$@"
"""


@pytest.fixture
def read_only(command: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`dubio-serve`, where nothing can be written but what other file systems hold."""
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"):  # the second is set by torch, for its own children
        monkeypatch.delenv(name, raising=False)

    class ReadOnly(type(command)):
        def _line(self, arguments: tuple[str, ...]) -> list[str]:
            return ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *super()._line(arguments)]

    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", "touch", "/tmp/dubio-written"], capture_output=True
    )
    if tried.returncode != 1 or b"Read-only" not in tried.stderr:
        pytest.skip(f"this user cannot make a file system read-only for one process: {tried.stderr.decode()}")
    return ReadOnly()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_a_temporary_folder_the_folder_is_named_and_not_the_checkpoint(
    read_only: Any, checkpoint: Path, workers: str
) -> None:
    code, line = read_only.refused(str(checkpoint), "--port", "0", "--workers", workers)
    assert code == 1
    assert "'/tmp'" in line
    for cure in ("--tmpfs /tmp", "emptyDir", "TMPDIR"):
        assert cure in line
    assert checkpoint.name not in line


def test_with_one_elsewhere_it_serves(read_only: Any, checkpoint: Path) -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm to write to")
    with read_only.started(str(checkpoint), TMPDIR="/dev/shm") as service:
        assert httpx.get(f"{service.url}/v2/health/ready").status_code == 200
        assert service.finish(2) == 0


def test_a_folder_that_was_wished_and_cannot_be_used_is_told(command: Any) -> None:
    done = command.run("a=none.ckpt", "--port", "0", TMPDIR="/proc")
    assert "TMPDIR is /proc, which cannot be written to; using /" in done.stderr
