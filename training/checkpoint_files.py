"""The checkpoint files of a training: read as plain data, and deleted one by one in the run's own folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from dubio.models.checkpoint import file
from dubio.models.trial import Limits, identity, tried

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


_known: set[tuple[int, ...]] = set()  # files that passed a trial, or that this process wrote


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, which a process of its own has read before.

    Raises:
        ModelError: If it is missing, damaged, holds more than plain data and tensors, or takes too much to read.
    """
    limits = Limits.of_environment()
    if limits is None or identity(path) in _known:
        return file.read_content(os.fspath(path))
    with tried(os.fspath(path), limits, "read"):
        content = file.read_content(os.fspath(path))
        held = identity(path)
    _remember(held)
    return content


def _remember(held: tuple[int, ...] | None) -> None:
    if held is not None:  # a path may also name an object store
        _known.add(held)


class CheckpointFiles(TorchCheckpointIO):
    """Reads and deletes checkpoints; Lightning's own follows whatever path a checkpoint names, and deletes whole trees.

    Args:
        folders: Gives the folders whose files may be deleted.
    """

    def __init__(self, folders: Callable[[], Iterable[str | os.PathLike[str] | None]]) -> None:
        self._folders = folders

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """The content of a checkpoint, on the CPU.

        Raises:
            ModelError: As `read`.
        """
        return read(path)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint, which this process may read again without a trial as long as nobody changes it."""
        super().save_checkpoint(checkpoint, path, storage_options)
        _remember(identity(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete one plain file of the run; anything else is left alone."""
        folders = [Path(folder).resolve() for folder in self._folders() if folder]
        if is_plain(path) and any(Path(path).parent.resolve().is_relative_to(folder) for folder in folders):
            os.unlink(path)

    @classmethod
    def of(cls, trainer: Trainer) -> CheckpointFiles:
        """For the folders of a trainer's callbacks that keep checkpoints."""
        return cls(lambda: [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)])


def keep_to_folders(callbacks: Iterable[object], states: dict[Any, Any]) -> None:
    """Let the states that a checkpoint holds of callbacks name checkpoints in these callbacks' own folders alone.

    Of a path its last part is kept, and only if such a file is there: a run that was moved goes on where it is now.

    Args:
        callbacks: Of the trainer.
        states: Of the callbacks, as the checkpoint has them; changed.
    """
    folders = {each.state_key: each.dirpath for each in callbacks if isinstance(each, ModelCheckpoint)}
    for key, state in states.items():
        if isinstance(state, dict):
            states[key] = _kept(state, folders.get(key))


def _kept(state: dict[str, Any], folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    def own(path: object) -> str:
        name = Path(path).name if isinstance(path, str) else ""
        inside = Path(folder or "") / name
        return str(inside) if folder and inside.suffix == ".ckpt" and is_plain(inside) else ""

    kept = {key: own(value) if key in _PATHS else value for key, value in state.items()}
    best = kept.get("best_k_models")
    if isinstance(best, dict):
        own_best = {own(path): score for path, score in best.items() if own(path)}
        # One that is gone would be looked up as the worst of all.
        kept["best_k_models"] = own_best if kept.get("kth_best_model_path") in own_best else {}
    return kept


def is_plain(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file of that name, and no folder, link or pipe."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
