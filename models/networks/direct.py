"""Direct dropout, the original one: units are dropped in training and all of them are weakened afterwards."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.validation import check_rates


class DirectDropout(nn.Module):
    """Dropout as it was first published (Hinton 2012, Srivastava 2014).

    In training a unit is dropped with probability p and is otherwise left as it is; in eval mode every unit is
    multiplied by 1 - p, the probability with which it was there. Inverted dropout, which is what torch has, divides by
    1 - p in training and does nothing in eval mode: the same network, with weights behind it that are 1 - p times as
    large.

    Args:
        p: probability with which a unit is dropped.

    Raises:
        ValueError: the rate is not in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_rates([p], layers=1, name="p")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with units dropped in training, and weakened in eval mode."""
        # Torch's function, and not a mask of its own, so that a committee finds the site.
        return F.dropout(x, self.p, self.training) * (1 - self.p)

    def extra_repr(self) -> str:
        """What a printed layer says."""
        return f"p={self.p:g}"
