"""The rows of a request that the store keeps whatever is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawn:
    """Decided before the request is answered, so that these rows tell of all.

    Attributes:
        request_id: Of the request.
        sampled: Whether each of its rows was drawn.
        everything: Whether the caller asked to keep all of them.
    """

    request_id: str
    sampled: Sequence[bool]
    everything: bool

    @property
    def rows(self) -> list[int]:
        """Their numbers in the request."""
        return [row for row, sampled in enumerate(self.sampled) if sampled or self.everything]
