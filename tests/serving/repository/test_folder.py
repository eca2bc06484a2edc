"""A folder with one checkpoint in it, as KServe, a ConfigMap or a volume leaves it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.errors import InvalidModelSource, LoadFailed
from dubio.serving.repository.folder import checkpoint_of
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.reconciler import Control, Reconciler
from dubio.serving.repository.registry import Registry
from dubio.serving.repository.source import ModelSource


@dataclass
class Volume:
    """A folder that is filled as the kubelet fills one: files are links through `..data`, which is swapped at once.

    Attributes:
        root: The folder.
    """

    root: Path
    _count: int = 0

    def publish(self, **files: Path) -> None:
        """Put files in place by the name before `.ckpt`, and remove those that were there."""
        self._count += 1
        data = self.root / "..data"
        old = os.readlink(data) if data.is_symlink() else None
        new = f"..2026_11_27_01_00_00.{self._count}"
        (self.root / new).mkdir(parents=True)
        for name, path in files.items():
            shutil.copy(path, self.root / new / f"{name}.ckpt")
        (self.root / "..data_tmp").symlink_to(new)
        os.replace(self.root / "..data_tmp", data)
        for name in files:
            link = self.root / f"{name}.ckpt"
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}.ckpt")
        for link in self.root.glob("*.ckpt"):
            if link.stem not in files:
                link.unlink()
        if old is not None:
            shutil.rmtree(self.root / old)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "models")


@dataclass
class Serving:
    """A reconciler of one named folder, driven look by look."""

    reconciler: Reconciler
    registry: Registry

    @classmethod
    def of(cls, text: str, control: Control = "poll", root: Path | None = None) -> Serving:
        source = ModelSource.parse(text)
        registry = Registry((source.name,))
        loader = Loader(device="cpu", trusted=(), strategy="loop")
        return cls(Reconciler({source.name: source}, root, control, loader, registry), registry)

    @property
    def weights(self) -> dict[str, list[str]]:
        """By name, what tells the weights of its versions apart."""
        return {
            name: [model.predictor.provenance.weights_sha256 for model in versions.values()]
            for name, versions in self.registry.served.items()
        }

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.reconciler.look()


@pytest.fixture
def sums(checkpoint: Path, second_checkpoint: Path) -> tuple[str, str]:
    load = Loader(device="cpu", trusted=(), strategy="loop").load
    first, second = (load(ModelSource("a", path)).predictor for path in (checkpoint, second_checkpoint))
    return first.provenance.weights_sha256, second.provenance.weights_sha256


def test_a_folder_is_named_as_it_is_or_by_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "v1.2"
    folder.mkdir()
    (folder / "best.ckpt").touch()
    (folder / "config.yaml").touch()
    for text, name in [(str(folder), "v1.2"), (f"{folder}/", "v1.2"), (f"digits={folder}", "digits")]:
        found = checkpoint_of(ModelSource.parse(text))
        assert (found.name, found.version, found.root) == (name, "1", folder)
        assert found.paths == (folder / "best.ckpt",)
    monkeypatch.chdir(folder)
    assert checkpoint_of(ModelSource.parse(".")).name == "v1.2"


def test_a_source_of_files_stands_for_itself(tmp_path: Path) -> None:
    for text in (f"a={tmp_path}/none.ckpt", f"a={tmp_path}/x.ckpt+{tmp_path}/y.ckpt"):
        source = ModelSource.parse(text)
        assert checkpoint_of(source) is source


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ((), "but no file in it ends in .ckpt (it holds nothing); put a checkpoint there"),
        (
            ("config.yaml", "model.pt", ".model.ckpt"),
            "but no file in it ends in .ckpt (it holds config.yaml, model.pt); put a checkpoint there",
        ),
        (
            ("b.ckpt", "a.ckpt"),
            "but it holds 2 (a.ckpt, b.ckpt); name the file, digits=FOLDER/a.ckpt, or, as one ensemble, "
            "digits=FOLDER/a.ckpt+FOLDER/b.ckpt",
        ),
        (
            tuple(f"{number}.ckpt" for number in range(9)),
            "it holds 9 (0.ckpt, 1.ckpt, 2.ckpt, 3.ckpt, 4.ckpt and 4 more)",
        ),
        (
            ("digits/1/model.ckpt",),
            "but it is a model repository (it holds digits/1/model.ckpt); serve it with --model-repository FOLDER",
        ),
    ],
)
def test_a_folder_that_is_not_clear_is_refused_with_the_cure(
    tmp_path: Path, files: tuple[str, ...], complaint: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InvalidModelSource) as told:
        checkpoint_of(ModelSource.parse(f"digits={tmp_path}"))
    assert f"Expected one checkpoint in the folder {tmp_path}, " in str(told.value)
    assert complaint.replace("FOLDER", str(tmp_path)) in str(told.value)
    with pytest.raises(InvalidModelSource):
        Serving.of(f"digits={tmp_path}").reconciler.start()


def test_an_ensemble_is_made_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").mkdir()
    with pytest.raises(InvalidModelSource, match=r"ensemble 'deep', but .*a\.ckpt is a folder; name the file in it"):
        checkpoint_of(ModelSource("deep", tmp_path / "b.ckpt", (tmp_path / "a.ckpt",)))


def test_what_is_swapped_in_a_mounted_volume_is_taken_up(
    volume: Volume, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str]
) -> None:
    volume.publish(model=checkpoint)
    serving = Serving.of(f"digits={volume.root}")
    serving.reconciler.start()
    assert serving.weights == {"digits": [sums[0]]}
    volume.publish(model=second_checkpoint)
    serving.look(1)
    assert serving.weights == {"digits": [sums[0]]}  # until two looks found the same
    serving.look(1)
    assert serving.weights == {"digits": [sums[1]]}
    volume.publish(other=checkpoint)  # under another name
    serving.look()
    assert serving.weights == {"digits": [sums[0]]}


def test_what_is_served_goes_on_while_the_folder_is_not_clear(
    volume: Volume,
    checkpoint: Path,
    second_checkpoint: Path,
    sums: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume.publish(model=checkpoint)
    serving = Serving.of(f"digits={volume.root}")
    serving.reconciler.start()
    volume.publish(model=checkpoint, other=second_checkpoint)
    serving.look(3)
    volume.publish()
    serving.look(3)
    assert serving.weights == {"digits": [sums[0]]}
    told = [line.partition(", but ")[2][:12] for line in caplog.messages if "Expected one checkpoint" in line]
    assert told == ["it holds 2 (", "no file in i"]  # each once
    with pytest.raises(LoadFailed, match=r"Failed to load 'digits': its folder does not hold exactly one checkpoint"):
        serving.reconciler.load("digits")
    shutil.rmtree(volume.root)  # not mounted any more
    serving.look(3)
    assert "Model digits version 1 waits: a checkpoint of it cannot be opened." in caplog.messages
    volume.publish(model=second_checkpoint)
    serving.look()
    assert serving.weights == {"digits": [sums[1]]}


def test_links_may_not_lead_out_of_the_folder(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.ckpt").symlink_to(checkpoint)
    with pytest.raises(UnreadableCheckpoint, match="leads out of the model repository"):
        Serving.of(str(folder)).reconciler.start()
    (tmp_path / "link").symlink_to(checkpoint.parent)  # the folder itself may be one
    serving = Serving.of(f"digits={tmp_path / 'link'}")
    serving.reconciler.start()
    assert list(serving.weights) == ["digits"]


def test_a_repository_of_a_mounted_volume_is_swapped_as_well(
    volume: Volume, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str]
) -> None:
    """Of folders the kubelet links the topmost: `digits -> ..data/digits`."""

    def publish(path: Path) -> None:
        volume.publish()
        (volume.root / "..data" / "digits" / "1").mkdir(parents=True)
        shutil.copy(path, volume.root / "..data" / "digits" / "1" / "model.ckpt")
        if not (volume.root / "digits").is_symlink():
            (volume.root / "digits").symlink_to("..data/digits")

    publish(checkpoint)
    registry = Registry(())
    loader = Loader(device="cpu", trusted=(), strategy="loop")
    serving = Serving(Reconciler({}, volume.root, "poll", loader, registry), registry)
    serving.reconciler.start()
    assert serving.weights == {"digits": [sums[0]]}
    publish(second_checkpoint)
    serving.look()
    assert serving.weights == {"digits": [sums[1]]}


def test_a_checkpoint_that_lies_in_a_repository_directly_is_told(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(checkpoint, tmp_path / "model.ckpt")
    cure = f"without --model-repository: dubio-serve {tmp_path}."
    registry = Registry(())
    with pytest.raises(InvalidModelSource, match=r"there is none.*Skipped 'model\.ckpt'") as told:
        Reconciler({}, tmp_path, "none", Loader(device="cpu", trusted=()), registry).start()
    assert cure in str(told.value)
    with caplog.at_level(logging.WARNING, "dubio"):
        Reconciler({}, tmp_path, "poll", Loader(device="cpu", trusted=()), registry).start()
    assert cure in caplog.text


@pytest.mark.slow
def test_the_command_serves_a_folder_and_takes_up_what_is_swapped(
    command: Any, volume: Volume, checkpoint: Path, numbers_checkpoint: Path, wait: Callable[..., None]
) -> None:
    volume.publish(model=checkpoint)
    given = (f"digits={volume.root}", "--model-control", "poll", "--poll-seconds", "0.1", "--strategy", "loop")
    with command.started(*given) as service, httpx.Client(base_url=service.url) as client:
        assert client.get("/v2/models/digits").json()["inputs"][0]["shape"] == [-1, 1, 8, 8]
        volume.publish(model=numbers_checkpoint)
        wait(lambda: client.get("/v2/models/digits").json()["inputs"][0]["shape"] == [-1, 5])


@pytest.fixture
def wait() -> Callable[..., None]:
    import time

    def until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return until


def test_the_command_refuses_an_unclear_folder_in_one_line(command: Any, tmp_path: Path) -> None:
    code, line = command.refused(f"digits={tmp_path}", "--port", "0")
    assert code == 2
    assert "no file in it ends in .ckpt (it holds nothing)" in line
