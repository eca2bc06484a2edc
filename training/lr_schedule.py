"""A learning rate that rises, then falls along half a cosine, step by step."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dubio.training.errors import TrainingError


class WarmupCosine(LRScheduler):
    """Rises linearly to the optimizer's rate, then falls to `floor` times it along half a cosine (Loshchilov 2017).

    Torch's OneCycleLR would change the momentum as well, and its peak instead of the optimizer's rate counts.

    Args:
        optimizer: Whose rates are scheduled.
        warmup: Share of all steps during which the rate rises.
        floor: Share of the rate that is left at the end.
        steps: Of the whole training; by default those that the trainer counts.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.1, floor: float = 0.0, steps: int | None = None) -> None:
        if not 0 <= warmup < 1:
            raise TrainingError(f"Expected `warmup` to be a share of all steps in [0, 1), but got {warmup}.")
        if not 0 <= floor <= 1:
            raise TrainingError(f"Expected `floor` to be a share of the rate in [0, 1], but got {floor}.")
        if steps is not None and steps < 1:
            raise TrainingError(f"Expected `steps` to be a positive number, but got {steps}.")
        self.warmup = warmup
        self.floor = floor
        self.steps = steps
        super().__init__(optimizer)

    def plan(self, steps: int) -> None:
        """Says how many steps the training has, unless that was given."""
        if self.steps is None:
            self.steps = max(1, steps)
            # The first step was set before its share was known.
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group for the next step."""
        return [float(base) * self.share(self.last_epoch) for base in self.base_lrs]

    def share(self, step: int) -> float:
        """What is left of the rate in a step, in [0, 1]; the first step has the number 0."""
        if self.steps is None:
            return 1.0
        rising = int(self.warmup * self.steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        done = min(1.0, (step - rising) / max(1, self.steps - rising))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
