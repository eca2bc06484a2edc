"""Natural inputs: rows of named columns and texts, which a user has, as the raw numbers that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Reader(Protocol):
    """Reads what a user has: `dubio.models.inputs.tabular.Table` or `dubio.models.inputs.text.Tokens`."""

    def read(self, instances: Sequence[Any], spend: Callable[[int], None] = ...) -> NDArray[np.float32]:
        """Raw inputs ``[N, *shape]``.

        Args:
            instances: What the user has.
            spend: Called ahead of work that may be long, with how many units it has; may raise to end it.

        Raises:
            InvalidInput: If an instance is not what the model takes.
        """

    def decode(self, raw: Sequence[float]) -> Any:
        """An instance that has these numbers, as nearly as there is one."""

    def example(self) -> Any:
        """An instance to try."""

    def outside(self, raw: Tensor) -> Tensor:
        """Whether a raw input holds what no training row had, ``[B]``."""
