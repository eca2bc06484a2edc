"""Dropout layers that torch does not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dubio.models.networks.validation import check_rates


class _Dropout(nn.Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_rates(p=p)
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class LockedDropout(_Dropout):
    """Drops the same features at every step of a sequence.

    Torch's dropout draws anew at each step, so that over a long sequence every feature gets through at some step.

    Args:
        p: Share of the features that a sequence does without; the others grow by 1 / (1 - p).

    Raises:
        ValueError: If the rate is not in [0, 1].

    Source: Gal and Ghahramani 2016 (variational dropout).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Sequences ``[B, L, F]`` as they were, but for the features that each does without."""
        kept_BF = F.dropout(torch.ones_like(x[:, 0]), self.p, self.training)
        return x * kept_BF.unsqueeze(1)


class DirectDropout(_Dropout):
    """Dropout as it was first published.

    In training a unit is dropped with probability p and is otherwise left as it is; in eval mode every unit is
    multiplied by 1 - p, the probability with which it was there. Inverted dropout, which is what torch has, divides by
    1 - p in training and does nothing in eval mode: the same network, with weights behind it that are 1 - p times as
    large.

    Args:
        p: Probability with which a unit is dropped.

    Raises:
        ValueError: If the rate is not in [0, 1].

    Source: Hinton 2012, Srivastava 2014.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with units dropped in training, and weakened in eval mode."""
        # Torch's function, and not a mask of its own, so that a committee finds the site.
        return F.dropout(x, self.p, self.training) * (1 - self.p)
