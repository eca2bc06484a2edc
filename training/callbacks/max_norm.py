"""The max-norm constraint: no unit's incoming weights may grow beyond a length."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from dubio.training import parameter_groups
from dubio.training.errors import TrainingError


class MaxNorm(Callback):
    """Shortens the incoming weights of each unit to length c after every step (Srivastava 2014, section 5.1).

    Dropout trains with noise and is therefore trained with a high learning rate, and then weights may run away; with
    the constraint they cannot. Biases, normalisations and embeddings are left alone.

    Args:
        c: Largest length, typically 3 to 4.
        head: Whether the last layer's units are constrained as well.
    """

    def __init__(self, c: float = 3.0, head: bool = True) -> None:
        if not c > 0:
            raise TrainingError(f"Expected `c`, the largest length of a unit's weights, to be positive, but got {c}.")
        self.c = c
        self.head = head

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy).__name__ == "FSDPStrategy":
            raise TrainingError(
                "Expected a strategy that gives each process whole weights, but FSDP shards them, and the length of a "
                "part says nothing; use `ddp`, or leave the callback MaxNorm out."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Right behind each step: what averages weights after a batch, whatever its place in the list, sees short ones.
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.shorten(pl_module))

    def shorten(self, module: LightningModule) -> None:
        """Brings each unit of the module's `network` back within the length."""
        head = getattr(module.network, "head", None)
        excluded = {id(each) for each in head.parameters()} if isinstance(head, nn.Module) and not self.head else set()
        with torch.no_grad():
            for weight in parameter_groups.weights(module):
                if id(weight) not in excluded:
                    weight.copy_(torch.renorm(weight, p=2, dim=0, maxnorm=self.c))
