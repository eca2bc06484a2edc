"""What processes that train together do each for itself before the first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from dubio.training.data.module import TensorDataModule
from dubio.training.splits import duplicates


class Processes(Callback):
    """Gives each process random numbers of its own, so that dropout masks differ, and tells what all rows tell.

    The first process keeps those that it would have alone.

    Args:
        say: Says what weakens the figures.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        if trainer.global_rank:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, TensorDataModule) and data.share.count > 1 and trainer.is_global_zero:
            told = duplicates.told(data.division)
            if told is not None:
                self._say(told)
