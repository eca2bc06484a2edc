"""Folders of a repository that cannot be read: the others are served, and what was served of them goes on."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dubio.serving.errors import LoadFailed
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.reconciler import Reconciler
from dubio.serving.repository.registry import Registry

KEY = "some-secret-0123456789"
# root may read everything; without these two capabilities it is stopped as anybody is. The numbers are Linux's.
CONFINE = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def confined(command: Any) -> Any:
    """`dubio-serve`, by a user who may not read everything."""

    class Confined(type(command)):
        def _line(self, arguments: tuple[str, ...]) -> list[str]:
            return [sys.executable, "-c", CONFINE, *super()._line(arguments)]

    return Confined()


def put(checkpoint: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy(checkpoint, folder / "part")
    os.replace(folder / "part", folder / "model.ckpt")


def forbid(folder: Path) -> None:
    """Let nobody but somebody else look into it."""
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
        folder.chmod(0o700)
    else:
        folder.chmod(0)


def make_bad_folders(checkpoint: Path, root: Path) -> list[str]:
    """Put folders into a repository that cannot be served; gives what the log should say of each."""
    put(checkpoint, root / "denied" / "1")
    put(checkpoint, root / "my model" / "1")
    put(checkpoint, root / os.fsdecode(b"caf\xe9") / "1")
    put(checkpoint, root / "good" / "2")
    forbid(root / "denied")
    forbid(root / "good" / "2")
    (root / "circle").symlink_to("circle")
    (root / "nowhere").symlink_to("nothing")
    (root / "a link").symlink_to("denied/1")
    return [
        "Skipped 'denied' in the model repository: Permission denied.",
        "Skipped 'good/2' in the model repository: Permission denied.",
        "Skipped 'my model' in the model repository: a model's name has",
        "Skipped 'caf\\udce9' in the model repository: a model's name has",
        "Skipped 'circle' in the model repository: Too many levels of symbolic links.",
        "Skipped 'nowhere' in the model repository: No such file or directory.",
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def models_at(url: str) -> list[str]:
    return [model["name"] for model in httpx.get(f"{url}/v1/models").json()["models"]]


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bad_folders_do_not_stop_the_start(confined: Any, root: Path, numbers_checkpoint: Path) -> None:
    put(numbers_checkpoint, root / "good" / "1")
    complaints = make_bad_folders(numbers_checkpoint, root)
    keys = {"DUBIO_API_KEYS": f"infer,admin:{KEY}"}
    with confined.started("--model-repository", str(root), **keys) as service:
        headers = {"X-API-Key": KEY}
        with httpx.Client(base_url=service.url, headers=headers) as client:
            assert client.get("/v2/health/ready").status_code == 200
            index = client.post("/v2/repository/index").json()
            states = {(line["name"], line["version"]): line for line in index}
            assert {key: line["state"] for key, line in states.items()} == {
                ("good", "1"): "READY",
                ("good", "2"): "UNAVAILABLE",
            }
            assert states["good", "2"]["reason"] == "Its folder cannot be read: Permission denied."
            refused = client.post("/v2/repository/models/denied/load")
            assert refused.status_code == 400
            assert "its folder cannot be read: Permission denied" in refused.json()["error"]
        assert [service.log.count(line) for line in complaints] == [1] * len(complaints)
        assert service.finish(2) == 0


@pytest.mark.slow
def test_a_repository_that_may_not_be_seen_is_one_line_and_2(confined: Any, tmp_path: Path) -> None:
    (tmp_path / "denied" / "models").mkdir(parents=True)
    forbid(tmp_path / "denied")
    code, line = confined.refused("--model-repository", str(tmp_path / "denied" / "models"), "--port", "0")
    assert (code, "or this user may not see it" in line) == (2, True)


@pytest.mark.slow
def test_bad_folders_do_not_stop_the_watch(confined: Any, root: Path, numbers_checkpoint: Path) -> None:
    for name in ("kept", "good"):
        put(numbers_checkpoint, root / name / "1")
    options = ("--model-repository", str(root), "--model-control", "poll", "--poll-seconds", "0.1")
    with confined.started(*options) as service:
        complaints = make_bad_folders(numbers_checkpoint, root)
        (root / "kept").rename(root.parent / "kept")
        (root / "kept").symlink_to("kept")
        put(numbers_checkpoint, root / "new" / "1")
        wait_until(lambda: "new" in models_at(service.url))
        # Two looks more, in which something that was taken for gone would go.
        put(numbers_checkpoint, root / "newer" / "1")
        wait_until(lambda: "newer" in models_at(service.url))
        assert models_at(service.url) == ["good", "kept", "new", "newer"]
        (root / "kept").unlink()  # gone at last: now it goes
        wait_until(lambda: "kept" not in models_at(service.url))
        complaints.append("Skipped 'kept' in the model repository: Too many levels of symbolic links.")
        assert [service.log.count(line) for line in complaints] == [1] * len(complaints)
        assert service.finish(2) == 0


def test_by_request_what_cannot_be_read_is_told_and_stays(root: Path, numbers_checkpoint: Path) -> None:
    registry = Registry(())
    reconciler = Reconciler({}, root, "explicit", Loader(device="cpu", trusted=()), registry)
    for version in ("1", "2"):
        put(numbers_checkpoint, root / "row" / version)
    reconciler.load("row")
    (root / "row" / "1").rename(root / "away")
    (root / "row" / "1").symlink_to("1")
    put(numbers_checkpoint, root / "row" / "3")
    with pytest.raises(LoadFailed, match=r"version 1: its folder cannot be read: Too many levels .* served: 1, 2, 3\."):
        reconciler.load("row")
    assert list(registry.served["row"]) == ["1", "2", "3"]


def test_a_checkpoint_that_is_a_link_to_nothing_is_told_once(
    root: Path, numbers_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(())
    reconciler = Reconciler({}, root, "poll", Loader(device="cpu", trusted=()), registry)
    put(numbers_checkpoint, root / "row" / "1")
    reconciler.start()
    (root / "row" / "2").mkdir()
    (root / "row" / "2" / "model.ckpt").symlink_to("../../later.ckpt")
    (root / "row" / "1" / "model.ckpt").unlink()
    (root / "row" / "1" / "model.ckpt").symlink_to("model.ckpt")
    for _ in range(3):
        reconciler.look()
    assert list(registry.served["row"]) == ["1"]
    told = [line for line in caplog.messages if "waits: a checkpoint of it cannot be opened" in line]
    assert sorted(told) == [f"Model row version {v} waits: a checkpoint of it cannot be opened." for v in "12"]
    shutil.copy(numbers_checkpoint, root / "later.ckpt")
    for _ in range(2):
        reconciler.look()
    assert list(registry.served["row"]) == ["1", "2"]


def test_a_model_without_a_version_is_told_once_and_by_whoever_asks_for_it(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(checkpoint, tmp_path / "models" / "good" / "1")
    put(checkpoint, tmp_path / "models" / "flat")
    put(checkpoint, tmp_path / "models" / "words" / "v1")
    reconciler = Reconciler({}, tmp_path / "models", "poll", Loader(device="cpu", trusted=()), registry := Registry(()))
    with caplog.at_level("WARNING", "dubio"):
        reconciler.start()
        reconciler.look()
        reconciler.look()
    assert list(registry.served) == ["good"]
    assert [message.partition(";")[2] for message in caplog.messages] == [
        f" put the checkpoint into {name}/1/model.ckpt, and later ones into {name}/2 and so on."
        for name in ("flat", "words")
    ]
    with pytest.raises(LoadFailed, match=r"Failed to load 'flat'.*put the checkpoint into flat/1/model\.ckpt"):
        reconciler.load("flat")
    shutil.rmtree(tmp_path / "models" / "good" / "1")  # the last version of a model; its folder stays
    put(checkpoint, tmp_path / "models" / "flat" / "1")
    reconciler.look()
    reconciler.look()
    assert list(registry.served) == ["flat"]
