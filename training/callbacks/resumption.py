"""Going on from a checkpoint: what the configuration says now counts, or it is refused."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer, WeightAveraging
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dubio.training.checkpoint_files import keep_to_folders
from dubio.training.errors import TrainingError

SETTINGS = ("optimizer", "scheduler", "scheduler_interval")


class Resumption(Callback):
    """Gives a training that goes on the rates that its configuration asks for.

    Lightning restores rates, decay and schedule with the optimizer's state, so that what was changed since would count
    for nothing. Where something was changed, they are set anew, and the schedule is where it would be had it been used
    from the first step on.
    """

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._groups: list[list[dict[str, Any]]] = []
        self._schedules: list[dict[str, Any]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Finds out what was changed.

        Raises:
            TrainingError: If the state in the checkpoint does not belong to what is asked for now.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        keep_to_folders(callbacks, checkpoint.get("callbacks", {}))
        if "averaging_state" in checkpoint and not any(isinstance(each, WeightAveraging) for each in callbacks):
            raise TrainingError(
                "Expected the callback that averages weights, with which the checkpoint was trained, but there is none "
                "among `trainer.callbacks`; keep it, or start without `--ckpt_path`."
            )
        for each in callbacks:
            if isinstance(each, EarlyStopping) and each.state_key in checkpoint.get("callbacks", {}):
                checkpoint["callbacks"][each.state_key]["patience"] = each.patience
        self.changes = []
        before, now = checkpoint.get("hyper_parameters", {}), pl_module.hparams
        for name in SETTINGS:
            changed = list(_changes(f"model.init_args.{name}", before.get(name), now.get(name)))
            self.changes += [f"`{key}` {old} -> {new}" for key, old, new in changed]
            if name == "optimizer" and not all(_adjustable(old, new) for _, old, new in changed):
                raise TrainingError(
                    f"Expected the optimizer whose state the checkpoint holds, but got {', '.join(self.changes)}; "
                    "leave it as it was, or start without `--ckpt_path`."
                )
        if self.changes:
            checkpoint["lr_schedulers"] = []  # the state of another schedule would be mixed into that of this one

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what the configuration asks for, before the optimizer's state is restored.

        Raises:
            TrainingError: If the time was up when the checkpoint was written.
        """
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, Timer) and each.time_elapsed() > 0 >= (each.time_remaining() or math.inf):
                raise TrainingError(
                    f"Expected `trainer.max_time` to be more than the {each.time_elapsed():.3g} seconds that the "
                    "checkpoint has behind it, for it counts from the first epoch on; raise it."
                )
        self._groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self._schedules = [copy.deepcopy(each.scheduler.state_dict()) for each in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets it again, and says so."""
        if not self.changes:
            return
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=True):
            for group, asked in zip(optimizer.param_groups, groups, strict=True):
                group.update(asked)
        for config, state in zip(trainer.lr_scheduler_configs, self._schedules, strict=True):
            config.scheduler.load_state_dict(state)
            done = trainer.global_step if config.interval == "step" else trainer.current_epoch
            if not isinstance(config.scheduler, ReduceLROnPlateau):  # which follows metrics that are gone
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # there was an optimizer's step before each of these
                    for _ in range(done // config.frequency):
                        config.scheduler.step()
        if trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            print(
                f"dubio-train: note: goes on after epoch {trainer.current_epoch} with {', '.join(self.changes)}; the "
                f"learning rate is {rate:g} now.",
                file=sys.stderr,
            )


def _changes(where: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ: path, old and new value; of two classes the names alone."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("class_path") == new.get("class_path"):
        for key in {**old, **new}:
            yield from _changes(f"{where}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield where, *(each["class_path"] if isinstance(each, Mapping) else each for each in (old, new))


def _adjustable(*values: Any) -> bool:
    """Whether a setting of an optimizer may change: numbers may; others say which state there is."""
    numbers = [each for value in values for each in (value if isinstance(value, (list, tuple)) else [value])]
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers)
