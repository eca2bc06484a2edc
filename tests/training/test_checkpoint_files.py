from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from dubio.models.errors import UnreadableCheckpoint
from dubio.training.checkpoint_files import CheckpointFiles, is_plain, keep_to_folders
from tests import table


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two epochs."""
    return table.fit(tmp_path_factory.mktemp("half")) / "checkpoints" / "last.ckpt"


def _forged(half: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(half, weights_only=True)
    states = [state for key, state in content["callbacks"].items() if "Checkpoint" in key]
    assert len(states) == 2
    for state in states:
        change(state)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", ["local://{}", "file://{}", "{}", "{run}/checkpoints/../../victim", "link"])
@pytest.mark.parametrize("field", ["best_model_path", "last_model_path", "best_k_models"])
def test_resuming_deletes_nothing_that_a_checkpoint_names(field: str, form: str, half: Path, tmp_path: Path):
    victim, run = tmp_path / "victim", tmp_path / "runs" / "table"
    (victim / "deep").mkdir(parents=True)
    (victim / "deep" / "precious.ckpt").write_text("data")
    path = form.format(victim, run=run)
    if form == "link":
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "link.ckpt").symlink_to(victim)
        path = str(run / "checkpoints" / "link.ckpt")

    def change(state: dict[str, Any]) -> None:
        state["dirpath"] = str(run / "checkpoints")
        state.update({"best_k_models": {path: torch.tensor(9.0)}} if field == "best_k_models" else {field: path})
        state.update({"kth_best_model_path": path, "kth_value": torch.tensor(9.0)})

    forged = _forged(half, tmp_path / "forged.ckpt", change)
    table.fit(tmp_path, "--ckpt_path", str(forged), "--trainer.max_epochs", "3")
    assert (victim / "deep" / "precious.ckpt").read_text() == "data"


def test_a_training_goes_on_from_code_that_is_refused_before_it_begins(half: Path, tmp_path: Path):
    with pytest.raises(UnreadableCheckpoint, match=r"names `builtins\.set|__builtin__\.set"):
        CheckpointFiles(list).load_checkpoint(_forged(half, tmp_path / "a.ckpt", lambda state: state.update(a={1})))


def test_a_run_that_was_moved_keeps_the_checkpoints_that_moved_with_it(tmp_path: Path):
    for name in ("best.ckpt", "last.ckpt", "other.txt"):
        (tmp_path / name).write_text("weights")
    (tmp_path / "folder.ckpt").mkdir()
    callback = ModelCheckpoint(str(tmp_path))
    states: dict[str, Any] = {
        callback.state_key: {
            "best_model_path": "/old/run/best.ckpt",
            "kth_best_model_path": "/old/run/best.ckpt",
            "last_model_path": "gone.ckpt",
            "best_k_models": {"/old/run/best.ckpt": 1.0, "/etc/passwd": 2.0, "folder.ckpt": 3.0},
            "dirpath": "/old/run",
        },
        "Other": {"best_model_path": str(tmp_path / "best.ckpt"), "last_model_path": 5},
        "Timer": [1],
    }
    keep_to_folders([callback, object()], states)
    best = str(tmp_path / "best.ckpt")
    assert states == {
        callback.state_key: {
            "best_model_path": best,
            "kth_best_model_path": best,
            "last_model_path": "",
            "best_k_models": {best: 1.0},
            "dirpath": "/old/run",
        },
        "Other": {"best_model_path": "", "last_model_path": ""},
        "Timer": [1],
    }
    states[callback.state_key]["kth_best_model_path"] = "gone.ckpt"
    keep_to_folders([callback], states)
    assert states[callback.state_key]["best_k_models"] == {}


def test_only_plain_files_in_the_folders_of_a_run_are_deleted(tmp_path: Path):
    own, other = tmp_path / "run" / "checkpoints", tmp_path / "other"
    for folder in (own / "deep", other):
        folder.mkdir(parents=True)
    kept = [other / "a.ckpt", own / "deep" / "b.ckpt"]
    for path in kept:
        path.write_text("weights")
    (own / "link.ckpt").symlink_to(other / "a.ckpt")
    (own / "way").symlink_to(other)
    files = CheckpointFiles(lambda: [own, None])
    for path in (
        other / "a.ckpt",
        own / "deep",
        own / "link.ckpt",
        own / "way" / "a.ckpt",
        f"{own}/../../other/a.ckpt",
    ):
        files.remove_checkpoint(path)
    for path in (f"local://{other}", f"file://{own}/deep/b.ckpt", own / "none.ckpt", "nul\0"):
        files.remove_checkpoint(path)
    assert all(path.read_text() == "weights" for path in kept)
    assert os.path.lexists(own / "link.ckpt")
    files.remove_checkpoint(own / "deep" / "b.ckpt")
    assert not is_plain(own / "deep" / "b.ckpt")
