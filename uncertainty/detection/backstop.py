"""The backstop: what scores that are there for blatant strangers may spend of the false-alarm rate."""

from __future__ import annotations

import torch
from torch import Tensor

# Blatant strangers lie beyond every select score. A backstop may spend little of the false-alarm rate that other
# scores need for subtle ones: its share of larger select scores counts this many times over.
BACKSTOP_COST = 10.0


def discount(rank_B: Tensor) -> Tensor:
    """Ranks ``[B]``, lowered below 1 as `BACKSTOP_COST` says."""
    return torch.where(rank_B < 1, 1 - BACKSTOP_COST * (1 - rank_B), rank_B)
