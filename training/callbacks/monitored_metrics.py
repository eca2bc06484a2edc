"""Monitored metrics exist, which shows before the first epoch."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from dubio.models.errors import did_you_mean
from dubio.training.classifier import Classifier
from dubio.training.errors import TrainingError


class MonitoredMetrics(Callback):
    """Refuses a monitor of what nobody measures; Lightning finds out after an epoch."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the validation of a few batches, which comes before the training, has measured.

        Raises:
            TrainingError: If a callback or a schedule watches something else.
        """
        measured = trainer.callback_metrics
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        watching = [
            (type(each).__name__, each.monitor)
            for each in callbacks
            if isinstance(each, (ModelCheckpoint, EarlyStopping))
        ]
        watching += [
            (type(each.scheduler).__name__, each.monitor)
            for each in trainer.lr_scheduler_configs
            if each.reduce_on_plateau
        ]
        for name, metric in watching:
            if not isinstance(metric, str) or metric in measured or metric.startswith("train_"):
                continue
            # A module of one's own may measure more while it trains.
            if metric.startswith("val_") or type(pl_module) is Classifier:
                known = [*measured, "train_loss"]
                hint = did_you_mean(metric, known, f"known: {', '.join(known)}.")
                raise TrainingError(
                    f"Expected `monitor` of {name} to be a metric, but nobody measures {metric!r}; {hint}"
                )
