from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dubio.serving.server.runtime_dir import hold, runtime_dir

HOLD = """
import sys, time
from pathlib import Path
from dubio.serving.server.runtime_dir import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_behind(parent: Path, name: str) -> Path:
    """What a killed service leaves."""
    folder = parent / name
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "0.numbers").touch()
    return folder


def test_it_goes_with_its_context(parent: Path) -> None:
    with runtime_dir() as folder:
        assert folder.parent == parent
        assert folder.is_dir()
        hold(folder)
    assert list(parent.iterdir()) == []


def test_what_killed_services_left_is_removed_and_nothing_else(parent: Path) -> None:
    stale = left_behind(parent, "dubio-stale")
    (parent / "dubio-of-somebody-else").mkdir()
    (parent / "dubio-file").touch()
    other = left_behind(parent, "another")
    (parent / "dubio-link").symlink_to(other)
    with runtime_dir() as running, runtime_dir() as second:
        assert not stale.exists()
        assert running.exists()
        assert second.exists()
    assert {path.name for path in parent.iterdir()} == {"dubio-of-somebody-else", "dubio-file", "another", "dubio-link"}


def test_a_folder_that_a_worker_still_uses_stays_until_it_is_gone(parent: Path) -> None:
    folder = left_behind(parent, "dubio-orphan")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with runtime_dir():
        assert folder.exists()
    process.kill()
    process.wait()
    process.stdout.close()
    with runtime_dir():
        assert not folder.exists()
