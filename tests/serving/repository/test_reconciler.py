"""What a reconciler does is driven look by look; nothing here waits for a clock."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dubio.models.errors import UnreadableCheckpoint
from dubio.serving.errors import InvalidModelSource, LoadFailed, SelfTestFailed, UnknownModel
from dubio.serving.repository.loader import Loader
from dubio.serving.repository.reconciler import Control, Reconciler
from dubio.serving.repository.registry import Registry
from dubio.serving.repository.source import ModelSource


class Serving:
    """A reconciler over a directory, and what it serves."""

    def __init__(self, root: Path, control: Control = "poll", named: tuple[ModelSource, ...] = ()) -> None:
        self.registry = Registry(tuple(source.name for source in named))
        self.reconciler = Reconciler(
            {source.name: source for source in named}, root, control, Loader(device="cpu", trusted=()), self.registry
        )

    @property
    def served(self) -> dict[str, list[str]]:
        return {name: list(versions) for name, versions in self.registry.served.items()}

    @property
    def states(self) -> dict[tuple[str, str], tuple[str, str]]:
        return {(each.name, each.version): (each.state.value, each.reason) for each in self.registry.states()}

    def fingerprint(self, name: str, version: str) -> str:
        return weights(self.registry.served[name][version])


def weights(model: object) -> str:
    return model.predictor.provenance.weights_sha256


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def sums(checkpoint: Path, second_checkpoint: Path) -> tuple[str, str]:
    """By which the two checkpoints can be told apart."""
    load = Loader(device="cpu", trusted=()).load
    return weights(load(ModelSource("a", checkpoint))), weights(load(ModelSource("b", second_checkpoint)))


def put(checkpoint: Path, folder: Path, name: str = "model.ckpt") -> Path:
    """Put a checkpoint where it belongs, as one should: all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / "part")
    os.replace(folder / "part", folder / name)
    return folder / name


def test_everything_is_served_from_the_start(root: Path, checkpoint: Path, numbers_checkpoint: Path) -> None:
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root / "bars" / "12")
    put(checkpoint, root / "named" / "1")
    serving = Serving(root, "none", (ModelSource("named", numbers_checkpoint),))
    serving.reconciler.start()
    assert serving.served == {"named": ["1"], "bars": ["1", "12"]}
    # What the operator named hides what lies under its name in the directory.
    assert serving.registry.served["named"]["1"].predictor.input.kind == "numbers"


def test_what_is_wrong_at_the_start_ends_it_unless_the_directory_is_watched(
    root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    for control in ("none", "explicit"):
        with pytest.raises(UnreadableCheckpoint):
            Serving(root, control, (ModelSource("gone", tmp_path / "gone.ckpt"),)).reconciler.start()
    with pytest.raises(InvalidModelSource, match="there is none"):
        Serving(root, "none").reconciler.start()
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root / "bars" / "2").write_bytes(b"nothing")
    with pytest.raises(UnreadableCheckpoint, match=r"2/model\.ckpt"):
        Serving(root, "none").reconciler.start()
    watched = Serving(root, "poll")
    watched.reconciler.start()
    assert watched.served == {"bars": ["1"]}
    assert watched.states[("bars", "2")][0] == "UNAVAILABLE"
    assert str(root) not in watched.states[("bars", "2")][1]


def test_a_new_version_takes_over_after_two_looks_and_beside_the_old_one(root: Path, checkpoint: Path) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    old = serving.registry.served["bars"]["1"]
    put(checkpoint, root / "bars" / "2")
    serving.reconciler.look()
    assert serving.served == {"bars": ["1"]}
    serving.reconciler.look()
    assert serving.served == {"bars": ["1", "2"]}
    assert serving.registry.served["bars"]["1"] is old
    newest = serving.registry.served["bars"]["2"]
    for _ in range(3):
        serving.reconciler.look()
    assert serving.registry.served["bars"]["2"] is newest  # nothing changed, nothing is loaded again

    shutil.rmtree(root / "bars" / "2")
    serving.reconciler.look()
    assert serving.served == {"bars": ["1", "2"]}
    serving.reconciler.look()
    assert serving.served == {"bars": ["1"]}
    assert serving.states == {("bars", "1"): ("READY", "")}


def test_a_named_file_that_is_replaced_is_taken_up(
    root: Path, checkpoint: Path, second_checkpoint: Path, tmp_path: Path, sums: tuple[str, str]
) -> None:
    path = put(checkpoint, tmp_path / "runs")
    serving = Serving(root, "poll", (ModelSource("bars", path),))
    serving.reconciler.start()
    assert serving.fingerprint("bars", "1") == sums[0]
    put(second_checkpoint, tmp_path / "runs")
    serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[0]
    serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[1]
    path.unlink()
    for _ in range(3):
        serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[1]  # the last good one
    assert serving.states == {("bars", "1"): ("READY", "")}  # a file that is gone is not tried


def test_a_file_that_is_being_written_is_left_alone_and_a_cut_off_one_is_refused(
    root: Path, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    content = second_checkpoint.read_bytes()
    with path.open("wb", buffering=0) as writer, caplog.at_level(logging.WARNING, "dubio"):
        for start in range(0, len(content) // 2, len(content) // 8):
            writer.write(content[start : start + len(content) // 8])
            serving.reconciler.look()
        assert not caplog.records  # it was never even tried
        assert serving.fingerprint("bars", "1") == sums[0]
        serving.reconciler.look()  # the writer fell silent half-way
        assert "Cannot serve model bars version 1" in caplog.text
        state, reason = serving.states[("bars", "1")]
        assert state == "READY"
        assert "the old one goes on" in reason
        assert serving.fingerprint("bars", "1") == sums[0]
        serving.reconciler.look()
        serving.reconciler.look()
        assert len(caplog.records) == 1  # nor is it tried again and again
        writer.seek(0)
        writer.write(content)
    serving.reconciler.look()
    serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[1]
    assert serving.states[("bars", "1")] == ("READY", "")


def test_a_writer_that_is_killed_leaves_the_old_one(
    root: Path, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str]
) -> None:
    path = put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    code = (
        "import sys, time; content = open(sys.argv[1], 'rb').read(); target = open(sys.argv[2], 'wb', buffering=0)\n"
        "for start in range(0, len(content) - 2000, 1000):\n"
        "    target.write(content[start:start + 1000]); print(flush=True); time.sleep(0.002)\n"
        "time.sleep(60)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(second_checkpoint), str(path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(10):
        writer.stdout.readline()
        serving.reconciler.look()
    writer.kill()
    writer.communicate()
    for _ in range(4):
        serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[0]
    assert "the old one goes on" in serving.states[("bars", "1")][1]


def test_links_out_of_the_directory_are_refused_by_name(root: Path, checkpoint: Path) -> None:
    put(checkpoint, root / "good" / "1")
    for name, target in [("file", checkpoint), ("pipe", None)]:
        (root / name / "1").mkdir(parents=True)
        path = root / name / "1" / "model.ckpt"
        path.symlink_to(target) if target else os.mkfifo(path)
    (root / "folder").mkdir()
    (root / "folder" / "1").symlink_to(checkpoint.parent)
    serving = Serving(root)
    serving.reconciler.start()
    assert serving.served == {"good": ["1"]}
    for name in ("file", "folder"):
        assert "leads out of the model repository" in serving.states[(name, "1")][1]
    assert "plain file" in serving.states[("pipe", "1")][1]


def test_a_directory_that_vanishes_unloads_nothing(
    root: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    os.rename(root, root.with_name("away"))
    for _ in range(3):
        serving.reconciler.look()
    assert serving.served == {"bars": ["1"]}
    root.mkdir()  # where a volume is to be mounted
    for _ in range(3):
        serving.reconciler.look()
    assert serving.served == {"bars": ["1"]}
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "Cannot read the model repository",
        "The model repository is empty all at once",
    ]
    root.rmdir()
    os.rename(root.with_name("away"), root)
    put(checkpoint, root / "other" / "1")
    shutil.rmtree(root / "bars")
    for _ in range(2):
        serving.reconciler.look()
    assert serving.served == {"other": ["1"]}


def test_beside_a_named_model_a_directory_that_vanishes_unloads_nothing_either(
    root: Path, checkpoint: Path, numbers_checkpoint: Path
) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root, "poll", (ModelSource("row", numbers_checkpoint),))
    serving.reconciler.start()
    shutil.rmtree(root / "bars")
    for _ in range(3):
        serving.reconciler.look()
    assert serving.served == {"row": ["1"], "bars": ["1"]}


def test_a_trouble_is_told_once_each_time_it_comes(
    root: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    for times in (1, 2):
        os.rename(root, root.with_name("away"))
        for _ in range(3):
            serving.reconciler.look()
        os.rename(root.with_name("away"), root)
        serving.reconciler.look()
        assert caplog.text.count("Cannot read the model repository") == times


@pytest.mark.parametrize("meanwhile", ["as it was", "gone"])
@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_comes_back_is_looked_at_twice_again(
    root: Path, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str], meanwhile: str, named: bool
) -> None:
    path = put(checkpoint, root / "bars" / "1")
    serving = Serving(root, "poll", (ModelSource("bars", path),) if named else ())
    put(checkpoint, root / "other" / "1")
    serving.reconciler.start()
    old, new = path.with_name("old"), put(second_checkpoint, root / "bars" / "1", "new")

    def swap(source: Path, kept: Path) -> None:
        if path.exists():
            os.rename(path, kept)
        if source.exists():
            os.rename(source, path)

    swap(new, old)
    serving.reconciler.look()  # sees the new one once
    swap(old if meanwhile == "as it was" else Path("none"), new)
    serving.reconciler.look()
    swap(new, old)
    serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[0]
    serving.reconciler.look()
    assert serving.fingerprint("bars", "1") == sums[1]


def test_a_new_version_that_comes_and_goes_is_looked_at_twice_again(root: Path, checkpoint: Path) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root)
    serving.reconciler.start()
    path = put(checkpoint, root / "bars" / "2")
    serving.reconciler.look()
    os.rename(path, path.with_name("away"))  # never loaded, so nothing is there to be unloaded
    serving.reconciler.look()
    os.rename(path.with_name("away"), path)
    serving.reconciler.look()
    assert serving.served == {"bars": ["1"]}
    serving.reconciler.look()
    assert serving.served == {"bars": ["1", "2"]}


def test_an_ensemble_lies_in_one_folder(root: Path, checkpoint: Path, second_checkpoint: Path) -> None:
    put(checkpoint, root / "deep" / "1", "model-a.ckpt")
    put(second_checkpoint, root / "deep" / "1", "model-b.ckpt")
    serving = Serving(root, "none")
    serving.reconciler.start()
    assert serving.registry.served["deep"]["1"].predictor.committee.num_samples == 32


def test_on_request_what_is_new_or_changed_is_loaded_and_what_is_gone_unloaded(
    root: Path, checkpoint: Path, second_checkpoint: Path, sums: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dubio")
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root / "bars" / "2")
    serving = Serving(root, "explicit")
    serving.reconciler.start()
    assert serving.served == {}
    serving.reconciler.load("bars")
    assert serving.served == {"bars": ["1", "2"]}
    untouched = serving.registry.served["bars"]["2"]
    put(second_checkpoint, root / "bars" / "1")
    put(second_checkpoint, root / "bars" / "3")
    serving.reconciler.load("bars")
    assert serving.served == {"bars": ["1", "2", "3"]}
    assert serving.fingerprint("bars", "1") == serving.fingerprint("bars", "3") == sums[1]
    assert serving.registry.served["bars"]["2"] is untouched
    shutil.rmtree(root / "bars" / "3")
    serving.reconciler.load("bars")
    assert serving.served == {"bars": ["1", "2"]}
    assert caplog.messages[-1] == "Unloaded model bars version 3, which is not in the repository any more."
    serving.reconciler.unload("bars")
    assert caplog.messages[-2:] == [f"Unloaded model bars version {version}." for version in "12"]
    serving.reconciler.unload("bars")
    assert serving.served == {}
    serving.reconciler.load("bars")
    assert serving.served == {"bars": ["1", "2"]}
    shutil.rmtree(root / "bars")
    serving.reconciler.load("bars")
    assert serving.served == serving.states == {}


def test_a_load_that_fails_says_why_each_time_and_changes_nothing(
    root: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root, "none")
    with caplog.at_level(logging.INFO, "dubio"):
        serving.reconciler.start()
    assert re.fullmatch(r"Loaded model bars version 1 in \d+\.\d s\.", caplog.messages[-1])
    good = serving.registry.served["bars"]["1"]
    put(checkpoint, root / "bars" / "1").write_bytes(b"nothing")
    put(checkpoint, root / "bars" / "2").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(LoadFailed, match=r"version 1: .* version 2: .* that are served: 1\.") as caught:
            serving.reconciler.load("bars")
        assert str(root) not in str(caught.value)
    assert serving.registry.served["bars"]["1"] is good
    assert serving.states[("bars", "2")][0] == "UNAVAILABLE"
    serving.reconciler.unload("bars")
    with pytest.raises(LoadFailed, match=r"that are served: none\."):
        serving.reconciler.load("bars")


def test_a_model_that_fails_its_self_test_is_not_served(
    root: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(checkpoint, root / "bars" / "1")
    serving = Serving(root, "none")
    serving.reconciler.start()

    def fail(name: str, predictor: object) -> None:
        raise SelfTestFailed(f"Model {name!r} failed its self-test.")

    monkeypatch.setattr("dubio.serving.repository.loader.check", fail)
    put(checkpoint, root / "bars" / "2")
    with pytest.raises(LoadFailed, match="failed its self-test"):
        serving.reconciler.load("bars")
    assert serving.served == {"bars": ["1"]}


@pytest.mark.parametrize("name", ["none", "..", "../models/bars", "", "bars/1", ".hidden", "a\0b", "x" * 5000])
def test_names_that_are_nobodys(root: Path, checkpoint: Path, name: str) -> None:
    put(checkpoint, root / "bars" / "1")
    put(checkpoint, root / ".hidden" / "1")
    serving = Serving(root, "explicit")
    for act in (serving.reconciler.load, serving.reconciler.unload):
        with pytest.raises(UnknownModel, match="Expected the name of a model in the repository"):
            act(name)
    serving.reconciler.unload("bars")  # there is one, if not loaded
    assert serving.served == {}
