"""Beyond one machine: files of any size, on engines that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dubio.models import lazy

if TYPE_CHECKING:
    from dubio.scale.batch import ScoreBatch

__all__ = ["ScoreBatch"]

__getattr__, __dir__ = lazy.attributes(__name__, {"ScoreBatch": "batch"})
