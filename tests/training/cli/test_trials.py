"""Every command that begins with a checkpoint tries it first, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dubio.models import trial_client
from dubio.models.checkpoint import file
from dubio.models.errors import UnreadableCheckpoint
from dubio.models.trial import identity
from dubio.training import checkpoint_files
from dubio.training.cli.main import main
from tests.training.conftest import CONFIG, QUICK


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user has it: there is a trial, and no file is known yet."""
    monkeypatch.setenv("DUBIO_LOAD_TRIAL", "process")
    monkeypatch.setattr(checkpoint_files, "_known", set())


def test_a_checkpoint_that_takes_too_much_is_refused_in_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DUBIO_LOAD_SECONDS", "0.0001")
    with pytest.raises(SystemExit) as caught:
        main(["audit", "--ckpt", str(runs / "digits_mlp" / "model.ckpt")])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.ckpt: its trial load" in line
    assert "`load_seconds`" in line


def test_a_checkpoint_is_tried_once_and_what_this_process_wrote_is_known(runs: Path, monkeypatch: pytest.MonkeyPatch):
    path = runs / "digits_mlp" / "model.ckpt"
    whole = checkpoint_files.read(path)
    assert identity(path) in checkpoint_files._known
    trial_client.servers.close()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert checkpoint_files.read(path).keys() == whole.keys()


def test_a_checkpoint_that_goes_away_while_it_is_read_has_changed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, read = tmp_path / "model.ckpt", file.read_content
    path.write_bytes((runs / "digits_mlp" / "model.ckpt").read_bytes())

    def read_and_remove(name: str) -> dict[str, Any]:
        content = read(name)
        path.unlink()
        return content

    monkeypatch.setattr(file, "read_content", read_and_remove)
    with pytest.raises(UnreadableCheckpoint, match="changed between its trial and its load"):
        checkpoint_files.read(path)
    assert not checkpoint_files._known


@pytest.mark.parametrize("command", ["audit", "test", "validate", "predict", "calibrate", "fit"])
def test_without_a_trial_no_command_reads_a_checkpoint(
    command: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = runs / "digits_mlp"
    path = folder / "checkpoints" / "last.ckpt" if command == "fit" else folder / "model.ckpt"
    given = ["--config", CONFIG, "--runs", str(tmp_path), *QUICK, "--ckpt_path", str(path)]
    trial_client.servers.close()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SystemExit) as caught:
        main([command, *(["--ckpt", str(path)] if command == "audit" else given)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"{path}: it cannot be tried in a process of its own before it is loaded" in said
    assert "DUBIO_LOAD_TRIAL=none" in said
    assert list(tmp_path.rglob("*.ckpt")) == []
