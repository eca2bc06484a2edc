"""Fallbacks: the strategies that a committee does without, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from dubio.uncertainty.errors import StrategyNotApplicable, UncertaintyError

_log = logging.getLogger("dubio")
_LONGEST_REASON = 300

Strategy = Callable[[Tensor, slice], Tensor]
"""Gives logits ``[K, B, C]`` of some members for a batch of any size ``[B, ...]``."""


@dataclass(frozen=True)
class Dropped:
    """A strategy that is not used.

    Attributes:
        name: Of the strategy.
        reason: Why.
        failed: Whether it was tried and failed or disagreed with the loop; otherwise it does not apply here.
    """

    name: str
    reason: str
    failed: bool = False


class Fallbacks:
    """Collects what was dropped while a committee is built.

    Attributes:
        dropped: In the order in which they were tried.
    """

    def __init__(self) -> None:
        self.dropped: list[Dropped] = []

    def drop(self, name: str, reason: str) -> None:
        """Note a strategy that does not apply."""
        self.dropped.append(Dropped(name, reason))

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Try a strategy; where that raises, note why and go on without it.

        Args:
            name: Of the strategy.

        Raises:
            UncertaintyError: The network breaks a rule that every strategy relies on.
        """
        try:
            yield
        except StrategyNotApplicable as error:
            self.drop(name, str(error))
        except UncertaintyError:
            raise
        except Exception as error:  # the user's network may fail in any way where it is run otherwise
            lines = str(error).splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"[:_LONGEST_REASON]
            self.dropped.append(Dropped(name, reason, failed=True))

    def log(self, network: str, strategy: str) -> None:
        """Say what was dropped: a warning where a strategy failed, information where it does not apply."""
        for failed, level in ((True, logging.WARNING), (False, logging.INFO)):
            reasons = [f"{each.name} ({each.reason})" for each in self.dropped if each.failed == failed]
            if reasons:
                what = "failed" if failed else "do not apply"
                _log.log(level, "%s runs by %s; strategies that %s: %s", network, strategy, what, "; ".join(reasons))
