"""The checkpoints of a fit: the one that is calibrated and served, and the one to go on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from dubio.training.checkpoint_files import is_plain, read
from dubio.training.errors import TrainingError


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, to go on from after an interruption; Lightning's `save_last` waits for a better epoch.

    Lightning tells checkpoint callbacks apart by class and metric, so those of a user come beside these two.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_exception=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Saving waits for all processes: what ends all of them finds them here, an error in one of them does not.
        if trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt | SIGTERMException):
            super().on_exception(trainer, pl_module, exception)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch that is calibrated and served: the best by a metric, or without one the last."""

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuses settings under which no epoch would be kept.

        Raises:
            TrainingError: If there would be nothing to serve after the training.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.save_top_k == 0:
            raise TrainingError(
                "Expected `checkpoint.save_top_k` to be 1 or more, or -1 for all, but got 0, which would leave nothing "
                "to serve."
            )
        if trainer.limit_train_batches == 0:
            raise TrainingError("Expected `trainer.limit_train_batches` to be positive, but got 0; leave it out.")
        if self._validated and trainer.limit_val_batches == 0:
            raise TrainingError(
                f"Expected `trainer.limit_val_batches` to be positive where `checkpoint.monitor` is {self.monitor}, "
                "but got 0; leave it out, or set `checkpoint.monitor` to null to serve the last epoch."
            )
        epochs, first = trainer.max_epochs, self._first_epoch(trainer)
        if epochs is not None and 0 <= epochs < first:
            raise TrainingError(
                f"Expected `trainer.max_epochs` to be at least {first}, the first epoch that is kept with "
                f"`checkpoint.every_n_epochs` {max(1, self._every_n_epochs)} and `trainer.check_val_every_n_epoch` "
                f"{trainer.check_val_every_n_epoch}, but got {epochs}."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.save_top_k not in {0, 1} and self.filename and "{" not in self.filename:
            self.filename += "-{epoch}-{step}"  # several files of one name would replace each other
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forgets a best epoch whose file has been replaced since, by another run: its weights are gone."""
        path = state_dict["best_model_path"]
        if path and is_plain(path):
            held = read(path).get("callbacks", {}).get(self.state_key, {})
            if held.get("best_model_score") == state_dict["best_model_score"]:
                super().load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a training that ends before the first step that is kept; only now its steps are known.

        Raises:
            TrainingError: If there would be nothing to serve after the training.
        """
        super().on_train_start(trainer, pl_module)
        if trainer.fast_dev_run or self.best_model_path:  # type: ignore[attr-defined]
            return
        steps, first = trainer.estimated_stepping_batches, max(1, self._every_n_train_steps)
        if self._validated:
            per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            share = min(1.0, float(trainer.val_check_batch or math.inf) / trainer.num_training_batches)
            first = max(first, math.ceil(per_epoch * (self._first_epoch(trainer) - 1 + share)))
        if steps < first:
            raise TrainingError(
                f"Expected a training of at least {first} steps, after which there is a checkpoint to serve, but "
                f"`trainer.max_steps` and `trainer.max_epochs` end it after {steps}."
            )

    def path(self, trainer: Trainer) -> str:
        """The checkpoint to serve, after the fit.

        Raises:
            TrainingError: If there is none, or the training diverged.
        """
        if not self.best_model_path:
            kept = [each.best_model_path for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint)]
            other = f", or serve its last weights: `dubio-train calibrate --ckpt_path {kept[0]}`" if any(kept) else ""
            raise TrainingError(
                f"Expected the fit to leave a checkpoint with a `{self.monitor}`, but it ended before there was one; "
                f"let it run longer{other}."
            )
        score = self.best_model_score
        if score is not None and not math.isfinite(score):
            raise TrainingError(
                f"Expected a finite `{self.monitor}`, but the best one is {float(score)}: the training diverged. "
                f"{_cure(str(trainer.precision))}."
            )
        return str(Path(self.best_model_path))

    @property
    def _validated(self) -> bool:
        """Whether the metric is one of the validation."""
        return self.monitor is not None and self.monitor.startswith("val_")

    def _first_epoch(self, trainer: Trainer) -> int:
        """Number of the first epoch that is kept, from 1 on."""
        between = (trainer.check_val_every_n_epoch or 1) if self._validated else 1
        return math.lcm(max(1, self._every_n_epochs), between)


def _cure(precision: str) -> str:
    if precision == "16-true":
        return (
            "`16-true` holds no number between 0 and 6e-8, such as the `eps` that AdamW divides by, whatever the "
            "learning rate: set `trainer.precision` to bf16-mixed or 32-true"
        )
    return "Lower the learning rate (`model.init_args.optimizer.init_args.lr`)"
