"""What speaks for a promotion: what changes, and, where true labels come, who is right."""

from __future__ import annotations

from dataclasses import dataclass

from dubio.serving.shadow.comparison import Comparison
from dubio.serving.store.accuracy import Accuracy


@dataclass(frozen=True)
class Evidence:
    """A shadow is promoted if neither its accuracy nor its flag rate is known to be worse by the margin or more.

    There are two ways to learn the first: hardly a label changes (`Comparison.unchanged`), or true labels tell who is
    right (`Accuracy`). If the shadow's accuracy is worse by the margin, both are e-processes for that, and the chance
    that either ever reaches 2 / epsilon is at most epsilon / 2 + epsilon / 2. So half of the larger one counts. Where
    there is no store there are no true labels, and the first counts whole.

    Attributes:
        comparison: Of what both say.
        accuracy: Of both; None without a store.
        reason: Why nothing is known about it; None if something is.
    """

    comparison: Comparison
    accuracy: Accuracy | None
    reason: str | None

    @property
    def e_value(self) -> float:
        """The evidence now that neither is; 1 says nothing, nor does less."""
        return min(self._not_less_accurate(self.comparison.unchanged.e_value), self.comparison.unflagged.e_value)

    @property
    def level(self) -> float:
        """What both have to reach."""
        return 1 / self.comparison.pair.epsilon

    @property
    def reached(self) -> bool:
        """Whether both did: at some time, but that of true labels now, for labels may be corrected."""
        not_less_accurate = self._not_less_accurate(self.comparison.unchanged.largest) >= self.level
        return not_less_accurate and self.comparison.unflagged.alarm is not None

    def _not_less_accurate(self, unchanged: float) -> float:
        return unchanged if self.accuracy is None else max(unchanged, self.accuracy.e_value) / 2
