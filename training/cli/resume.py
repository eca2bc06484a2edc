"""The checkpoint that a command begins with: found by its name, and of the right kind."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.callbacks import ModelCheckpoint

from dubio.models.checkpoint import file, state_dict
from dubio.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from dubio.training.callbacks.resumption import Resumption
from dubio.training.checkpoint_files import read
from dubio.training.classifier import Classifier
from dubio.training.errors import TrainingError
from dubio.training.trainer import Trainer

_KINDS: dict[str, type[ModelCheckpoint]] = {"last": LastCheckpoint, "best": BestCheckpoint}


def find(given: str, trainer: Trainer) -> str:
    """The path of a checkpoint; `last` and `best` are those of the run.

    Raises:
        TrainingError: If the run has none; Lightning would quietly begin with random weights.
    """
    if given not in _KINDS:
        return given
    (callback,) = (each for each in trainer.checkpoint_callbacks if isinstance(each, _KINDS[given]))
    path = Path(str(callback.dirpath)) / f"{callback.filename}.ckpt"
    if not path.is_file():
        raise TrainingError(
            f"Expected `--ckpt_path {given}` to be {path}, but there is no such file; give the path of a checkpoint, "
            "or start without `--ckpt_path`."
        )
    return str(path)


def check(path: str, trainer: Trainer, model: Classifier) -> None:
    """Refuses a checkpoint that a fit cannot go on from.

    Raises:
        ModelError: If it is damaged, would run code, or holds the weights of another network.
        TrainingError: If it holds weights alone, the state of another optimizer, or nothing is left to train.
    """
    content = read(path)
    file.data_record(path, content)
    if "optimizer_states" not in content:
        raise TrainingError(
            f"Expected a checkpoint that a fit can go on from, but {path} holds weights alone; give one of "
            "`checkpoints/last.ckpt`, or start without `--ckpt_path`."
        )
    state_dict.find(path, content, model.network, file.PREFIX)
    for each in trainer.callbacks:
        if isinstance(each, Resumption):
            each.on_load_checkpoint(trainer, model, content)
    done = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= done:
        raise TrainingError(
            f"Expected `trainer.max_epochs` to be more than the {done} epochs that {path} has behind it, but got "
            f"{trainer.max_epochs}; raise it, or run `dubio-train calibrate --ckpt_path {path}`."
        )
    if 0 <= trainer.max_steps <= content["global_step"]:
        raise TrainingError(
            f"Expected `trainer.max_steps` to be more than the {content['global_step']} steps that {path} has behind "
            f"it, but got {trainer.max_steps}; raise it, or run `dubio-train calibrate --ckpt_path {path}`."
        )
