"""Averaged weights: what is asked for is what is served, or it is refused."""

from __future__ import annotations

import math

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from torch import nn

from dubio.training.errors import TrainingError

CURE = "use EMAWeightAveraging, whose average is validated, kept and served"


class AveragedWeights(Callback):
    """Refuses an average that no checkpoint would hold, or whose BatchNorm statistics would belong to other weights."""

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuses, before the training, what the settings show.

        Raises:
            TrainingError: If weights other than the averaged ones would be served.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(each, StochasticWeightAveraging) for each in callbacks):
            raise TrainingError(
                "Expected no StochasticWeightAveraging among `trainer.callbacks`, for it puts the average into the "
                f"network after the last checkpoint, so that the weights before averaging would be served; {CURE}."
            )
        averaging = [each for each in callbacks if isinstance(each, WeightAveraging)]
        if averaging and any(
            each.save_weights_only for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)
        ):
            # Lightning puts averaged weights into whole checkpoints only.
            raise TrainingError(
                "Expected `checkpoint.save_weights_only` to be false where weights are averaged, but it is true, and "
                "the checkpoint would hold the weights before averaging; leave it out."
            )
        normalized = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in module.modules())
        if normalized and any(not each._use_buffers for each in averaging):
            raise TrainingError(
                f"Expected `use_buffers` of {type(averaging[0]).__name__} to be true for a network with BatchNorm, but "
                "got false: its statistics would be those of the weights before averaging; leave it out."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses an average that begins after the end; only now the steps are known.

        Raises:
            TrainingError: If the weights before the first step would be served.
        """
        steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs or 0
        if trainer.fast_dev_run or math.isinf(steps):  # type: ignore[attr-defined]
            return
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, WeightAveraging) and not (
                any(each.should_update(step_idx=step) for step in range(int(steps)))
                or any(each.should_update(epoch_idx=epoch) for epoch in range(epochs))
            ):
                raise TrainingError(
                    f"Expected {type(each).__name__} to average at least once, but it begins after the end of the "
                    f"training ({epochs} epochs of {int(steps)} steps in all), and the weights before the first step "
                    "would be served; let it begin earlier."
                )
