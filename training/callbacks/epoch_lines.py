"""Progress as lines: for a log file, where a bar is drawn in vain."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar


class EpochLines(ProgressBar):
    """Prints one plain line after each epoch."""

    def disable(self) -> None:
        """Does nothing: the other processes print nothing anyway."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        epoch, every = trainer.current_epoch + 1, trainer.check_val_every_n_epoch
        of = f" of {trainer.max_epochs}" if trainer.max_epochs is not None and trainer.max_epochs > 0 else ""
        metrics = sorted(trainer.callback_metrics.items())
        if every and epoch % every:  # those of the validation are still those of an epoch before
            metrics = [(name, value) for name, value in metrics if not name.startswith("val_")]
        print(f"epoch {epoch}{of}: {', '.join(f'{name} {float(value):.4f}' for name, value in metrics)}", flush=True)
