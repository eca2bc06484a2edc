from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dubio import models
from dubio.models import Predictor
from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.repository import snapshot
from dubio.serving.repository.snapshot import private_copy


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_checkpoint_loads_from_its_copy_while_the_file_is_cut_short(
    checkpoint: Path,
    tmp_path: Path,
    predictor: Predictor,
    bars: np.ndarray,
    in_memory: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    path = tmp_path / "model.ckpt"
    path.write_bytes(checkpoint.read_bytes())
    before = descriptors()
    with private_copy(path, None, 2**20) as copy:
        path.write_bytes(b"")
        loaded = models.load(copy)
    assert descriptors() <= before
    assert not copy.exists()
    # Not to the last bit: each measured which strategy is the fastest.
    np.testing.assert_allclose(loaded.predict(bars).mc_mean, predictor.predict(bars).mc_mean, atol=1e-5)


def test_a_file_that_grows_meanwhile_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes(3 * 2**20))
    real = snapshot.shutil.copyfileobj

    def slowly(source: object, target: object, length: int) -> None:
        real(source, target, length)
        with path.open("ab") as writer:
            writer.write(b"more")

    monkeypatch.setattr(snapshot.shutil, "copyfileobj", slowly)
    with pytest.raises(UnreadableCheckpoint, match="still being written"), private_copy(path, None, 2**22):
        pass


def test_links_may_lead_about_in_the_root_but_not_out_of_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "..data", root / "m" / "1", outside / "1"):
        folder.mkdir(parents=True)
    for file in (root / "..data" / "model.ckpt", outside / "1" / "model.ckpt", tmp_path / "root2.ckpt"):
        file.write_bytes(b"content")
    (root / "m" / "1" / "model.ckpt").symlink_to("../../..data/model.ckpt")
    with private_copy(root / "m" / "1" / "model.ckpt", root, 2**20) as copy:
        assert copy.read_bytes() == b"content"
    (tmp_path / "link").symlink_to(root)  # the root itself may be one
    with private_copy(tmp_path / "link" / "m" / "1" / "model.ckpt", tmp_path / "link", 2**20):
        pass

    (root / "m" / "file.ckpt").symlink_to(outside / "1" / "model.ckpt")
    (root / "m" / "2").symlink_to(outside / "1")
    (root / "out").symlink_to(outside)
    (root / "m" / "sibling.ckpt").symlink_to("../../root2.ckpt")
    (root / "m" / "circle.ckpt").symlink_to("circle.ckpt")
    for path in ("m/file.ckpt", "m/2/model.ckpt", "out/1/model.ckpt", "m/sibling.ckpt", "m/../../root2.ckpt"):
        with (
            pytest.raises(UnreadableCheckpoint, match="leads out of the model repository"),
            private_copy(root / path, root, 2**20),
        ):
            pass
    with (
        pytest.raises(UnreadableCheckpoint, match="cannot be opened"),
        private_copy(root / "m/circle.ckpt", root, 2**20),
    ):
        pass


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Path]:
    """A repository in the folders of a process that has others than we, as the container of a model has."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount = f"mount -t tmpfs none '{folder}' && mkdir -p '{folder}/m/1' && echo content > '{folder}/m/1/model.ckpt'"
    line = ["unshare", "--mount", "sh", "-c", f"{mount} && echo ready && exec sleep 600"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout.readline() != "ready\n":
            pytest.skip("this user may not mount a folder for one process")
        assert list(folder.iterdir()) == []
        yield Path(f"/proc/{process.pid}/root{folder}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_links_that_only_the_kernel_follows_lead_where_they_lead(container: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(container)  # as one container shows its models to another
    for root in (None, container, tmp_path / "link"):
        with private_copy((root or container) / "m" / "1" / "model.ckpt", root, 2**20) as copy:
            assert copy.read_text() == "content\n"


def test_nor_do_they_lead_out_of_the_root(container: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.ckpt"
    outside.write_text("secret")
    (container / "m" / "1" / "here.ckpt").symlink_to(f"/proc/{os.getpid()}/root{outside}")
    root = tmp_path / "mounted"  # the same path, but another folder: ours, and empty
    (root / "m").mkdir()
    (root / "m" / "there.ckpt").symlink_to(container / "m" / "1" / "model.ckpt")
    (root / "m" / "1").symlink_to(container / "m" / "1")
    for path, within in [
        (container / "m" / "1" / "here.ckpt", container),
        (root / "m" / "there.ckpt", root),
        (root / "m" / "1" / "model.ckpt", root),
    ]:
        with (
            pytest.raises(UnreadableCheckpoint, match="leads out of the model repository"),
            private_copy(path, within, 2**20),
        ):
            pass


def test_a_file_that_was_replaced_just_now_does_not_lead_out(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"old")
    with path.open("rb") as file:
        assert snapshot._refusal(file.fileno(), path, tmp_path) is None
        (tmp_path / "part").write_bytes(b"new")
        os.replace(tmp_path / "part", path)
        assert snapshot._refusal(file.fileno(), path, tmp_path) == "was replaced while it was opened; try again."


def test_what_is_no_plain_file_is_refused_at_once_and_leaves_nothing_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = descriptors()
    for name, complaint in [("pipe", "plain file"), ("folder", "plain file"), ("none", "no such file")]:
        asking = threading.Thread(target=refuse, args=(tmp_path / name, complaint), daemon=True)
        asking.start()
        asking.join(10)
        assert not asking.is_alive()
    assert descriptors() <= before


def refuse(path: Path, complaint: str) -> None:
    with pytest.raises(UnreadableCheckpoint, match=complaint), private_copy(path, None, 2**20):
        pass


def test_a_file_larger_than_allowed_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    with (tmp_path / "sparse.ckpt").open("wb") as sparse:
        sparse.truncate(2**40)
    refuse(tmp_path / "sparse.ckpt", "has 1099511627776 bytes, but `max_model_bytes` is 1048576; raise it")
