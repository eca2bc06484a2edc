"""How often a shadow and the version that answers are right about the same rows, by what feedback says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from dubio.uncertainty.detection import martingale
from dubio.uncertainty.detection.martingale import PairedEProcess
from dubio.uncertainty.errors import UncertaintyError

_COUNTS = ("rows", "live", "shadow")


@dataclass(frozen=True)
class Accuracy:
    """Rows that both answered and that got a true label. Immutable.

    The evidence takes a row when its first label comes. A label that is corrected changes the counts; evidence that was
    looked at cannot be taken back, but where the correction speaks against the shadow, it counts as a row (or two) more
    that only the other version gets right. Such an outcome never pays more than its stake, so it stays an e-process for
    the first labels, which therefore have to be honest.

    Attributes:
        process: Evidence that the shadow's accuracy is not worse by the margin or more.
        rows: How many there are.
        live: Of these, how many the version that answers gets right.
        shadow: How many the shadow gets right.
    """

    process: PairedEProcess
    rows: int = 0
    live: int = 0
    shadow: int = 0

    @classmethod
    def begin(cls, margin: float, epsilon: float) -> Self:
        """Nothing is known yet."""
        return cls(PairedEProcess(epsilon=epsilon, margin=margin))

    @property
    def e_value(self) -> float:
        """The evidence now; 1 says nothing."""
        return self.process.e_value

    def observe(self, *, live: bool, shadow: bool) -> Self:
        """A row more: who is right about it."""
        return replace(
            self,
            process=self.process.observe([shadow - live]),
            rows=self.rows + 1,
            live=self.live + live,
            shadow=self.shadow + shadow,
        )

    def correct(self, before: tuple[bool, bool], after: tuple[bool, bool]) -> Self:
        """Another label for a row that was observed.

        Args:
            before: Whether the live version and the shadow were right by the label before.
            after: Whether they are by this one.
        """
        worse = (before[1] - before[0]) - (after[1] - after[0])
        return replace(
            self,
            process=self.process.observe([-1] * worse),
            live=self.live + after[0] - before[0],
            shadow=self.shadow + after[1] - before[1],
        )

    def dump(self) -> dict[str, Any]:
        """All of it as plain data: `load` goes on with the very same numbers."""
        return {"process": self.process.dump(), **{name: getattr(self, name) for name in _COUNTS}}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Self:
        """Go on with what `dump` gave.

        Raises:
            UncertaintyError: It is no such state.
        """
        process = martingale.load(state["process"])
        if not isinstance(process, PairedEProcess):
            raise UncertaintyError(f"Expected the state of a PairedEProcess, but got one of {type(process).__name__}.")
        return cls(process, **{name: int(state[name]) for name in _COUNTS})
