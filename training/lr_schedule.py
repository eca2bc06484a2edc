"""A learning rate that rises, then falls along half a cosine, step by step."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dubio.training.errors import TrainingError


class WarmupCosine(LambdaLR):
    """Rises linearly to the optimizer's rate, then falls to `floor` times it along half a cosine.

    Torch's OneCycleLR would change the momentum as well, and its peak instead of the optimizer's rate counts.

    Args:
        optimizer: Whose rates are scheduled.
        warmup: Share of all steps during which the rate rises.
        floor: Share of the rate that is left at the end.
        steps: Of the whole training; by default those that the trainer counts.

    Raises:
        TrainingError: If a share or the number of steps is out of bounds.

    Source:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017.
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
        super().__init__(optimizer, self.share)

    def plan(self, steps: float) -> None:
        """Says how many steps the training has, unless that was given.

        Raises:
            TrainingError: If it has no end.
        """
        if self.steps is not None:
            return
        if math.isinf(steps):
            raise TrainingError(
                "Expected a training whose steps are known to plan its learning rate, but `trainer.max_epochs` and "
                "`trainer.max_steps` set none (and nobody knows how many `trainer.max_time` allows); set one of them, "
                "or `steps` of the WarmupCosine."
            )
        self.steps = int(steps)
        self._set_rates()  # that of the first step was set before its share was known

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is; how it is planned belongs to the training that goes on, which may be longer."""
        return {key: value for key, value in super().state_dict().items() if key not in {"warmup", "floor", "steps"}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._set_rates()

    def _set_rates(self) -> None:
        self._last_lr = [base * self.share(self.last_epoch) for base in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def share(self, step: int) -> float:
        """What is left of the rate in a step, in [0, 1]; the first step has the number 0."""
        if self.steps is None:
            return 1.0
        rising = int(self.warmup * self.steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        done = min(1.0, (step - rising) / (self.steps - rising))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
