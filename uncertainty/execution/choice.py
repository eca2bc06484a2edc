"""The choice: which strategy runs how many members of batches of which size, as text that can be read and pinned."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

NAMES = ("chain", "thinned", "packed", "traced", "vmap", "fold", "loop")
# Members of a call of a few, such as adaptive sampling begins with; what runs all fastest need not run these so.
FEW = 8

_PART = re.compile(r"(\w+) up to ([1-9]\d{0,8}) rows?")
_FEW = re.compile(r"(.*) \(up to ([1-9]\d{0,8}) members: (.*)\)")


@dataclass(frozen=True)
class Choice:
    """Strategies by the number of rows in a batch; no two neighbours are alike.

    Attributes:
        names: Of the strategies, for small batches first.
        limits: The most rows that each but the last is for, increasing.
        few: The choice for calls of a few members, where it is another one,
        most_few: and how many members these ask at most.
    """

    names: tuple[str, ...]
    limits: tuple[int, ...] = ()
    few: Choice | None = None
    most_few: int = 0

    def __getitem__(self, rows: int) -> str:
        """Give the strategy for all members of a batch of so many rows."""
        return self.names[bisect_left(self.limits, rows)]

    def strategy(self, rows: int, members: int) -> str:
        """Give the strategy for so many members of a batch of so many rows."""
        return self[rows] if self.few is None or members > self.most_few else self.few[rows]

    @property
    def all_names(self) -> tuple[str, ...]:
        """Of the strategies for any number of members, those for all of them first."""
        return tuple(dict.fromkeys([*self.names, *(self.few.names if self.few else ())]))

    def __str__(self) -> str:
        """Say ``chain up to 16 rows, thinned (up to 30 members: chain)`` or, where one serves all, its name."""
        parts = [
            f"{name} up to {limit} row{'s' if limit > 1 else ''}"
            for name, limit in zip(self.names, self.limits, strict=False)
        ]
        few = f" (up to {self.most_few} members: {self.few})" if self.few else ""
        return ", ".join([*parts, self.names[-1]]) + few

    @classmethod
    def of(cls, names: Sequence[str], sizes: Sequence[int]) -> Choice:
        """Build from the strategy for each size; a batch takes the one of the next size, or of the last."""
        changes = [index for index, name in enumerate(names[:-1]) if names[index + 1] != name]
        return cls((*(names[index] for index in changes), names[-1]), tuple(sizes[index] for index in changes))

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read what ``str`` of a choice says.

        Raises:
            ValueError: The text is no choice.
        """
        if found := _FEW.fullmatch(text):
            whole, few = cls._by_rows(found[1], text), cls._by_rows(found[3], text)
            return whole if whole == few else replace(whole, few=few, most_few=int(found[2]))
        return cls._by_rows(text, text)

    @classmethod
    def _by_rows(cls, part: str, text: str) -> Choice:
        *parts, last = part.split(", ")
        matches = [_PART.fullmatch(part) for part in parts]
        names = (*(match[1] if match else "" for match in matches), last)
        limits = tuple(int(match[2]) if match else 0 for match in matches)
        if not set(names) <= set(NAMES) or limits != tuple(sorted(set(limits))):
            raise ValueError(
                f"expected one of {', '.join(NAMES)}, or several with increasing numbers of rows, such as "
                f"'chain up to 16 rows, thinned' or 'thinned (up to 30 members: chain)', but got {text!r:.200}"
            )
        return cls.of(names, (*limits, 0))
