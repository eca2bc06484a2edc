"""How much a row of each class counts in the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dubio.models.errors import did_you_mean
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError

ClassWeights = Literal["balanced"] | dict[str, float] | None


def of(wanted: ClassWeights, data: TensorDataModule) -> tuple[Tensor | None, Tensor | None]:
    """Weights `[C]` of the training loss and of the validation loss; None where every row counts alike.

    Over the training rows their mean is 1, so that a learning rate keeps its meaning. Where the training rows are drawn
    balanced, the validation rows count balanced: the epoch is chosen for what was trained.

    Args:
        wanted: As the user gave them.
        data: Whose training rows are counted.

    Raises:
        TrainingError: If a weight is no class's, not positive, or rows are balanced twice.
    """
    balanced_rows = data.sampling == "balanced"
    if wanted is None and not balanced_rows:
        return None, None
    if wanted is not None and balanced_rows:
        raise TrainingError(
            "Expected `model.init_args.class_weights` or `data.init_args.sampling: balanced`, but got both, which "
            "would balance the classes twice; leave one of them out."
        )
    labels = torch.from_numpy(data.load().labels("train").astype(np.int64))
    rows_C = torch.bincount(labels, minlength=len(data.classes)).double()
    # A class without training rows, of a data module of one's own, counts for nothing.
    weights_C = _by_name(wanted, data) if isinstance(wanted, Mapping) else 1 / rows_C.clamp(min=1)
    weights_C = (weights_C * rows_C.sum() / (weights_C * rows_C).sum()).float()
    return None if balanced_rows else weights_C, weights_C


def _by_name(wanted: Mapping[str, float], data: TensorDataModule) -> Tensor:
    # YAML reads a bare 0 as a number, which can mean one class only, and a bare `no` as false, which could be several.
    named = {name if isinstance(name, bool) else str(name): weight for name, weight in wanted.items()}
    for name, weight in named.items():
        if name not in data.classes:
            cure = did_you_mean(str(name), data.classes, f"the classes are {', '.join(data.classes[:20])}.")
            if isinstance(name, bool):
                cure = "put quotes around the names, because YAML reads yes and no as true and false."
            raise TrainingError(
                f"Expected `model.init_args.class_weights` to name classes of {data.title}, but got {name!r}; {cure}"
            )
        if not 0 < weight < math.inf:
            raise TrainingError(
                f"Expected `model.init_args.class_weights` to be positive numbers, but that of {name!r} is {weight}."
            )
    return torch.tensor([float(named.get(name, 1.0)) for name in data.classes], dtype=torch.float64)
