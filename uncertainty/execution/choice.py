"""The choice: which strategy runs batches of which size, as text that can be read and pinned."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

NAMES = ("chain", "thinned", "packed", "traced", "vmap", "fold", "loop")
_PART = re.compile(r"(\w+) up to ([1-9]\d{0,8}) rows?")


@dataclass(frozen=True)
class Choice:
    """Strategies by the number of rows in a batch; no two neighbours are alike.

    Attributes:
        names: Of the strategies, for small batches first.
        limits: The most rows that each but the last is for, increasing.
    """

    names: tuple[str, ...]
    limits: tuple[int, ...] = ()

    def __getitem__(self, rows: int) -> str:
        """Give the strategy for a batch of so many rows."""
        return self.names[bisect_left(self.limits, rows)]

    def __str__(self) -> str:
        """Say ``chain up to 16 rows, thinned`` or, where one strategy serves all, its name."""
        parts = [
            f"{name} up to {limit} row{'s' if limit > 1 else ''}"
            for name, limit in zip(self.names, self.limits, strict=False)
        ]
        return ", ".join([*parts, self.names[-1]])

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
        *parts, last = text.split(", ")
        matches = [_PART.fullmatch(part) for part in parts]
        names = (*(match[1] if match else "" for match in matches), last)
        limits = tuple(int(match[2]) if match else 0 for match in matches)
        if not set(names) <= set(NAMES) or limits != tuple(sorted(set(limits))):
            raise ValueError(
                f"expected one of {', '.join(NAMES)}, or several with increasing numbers of rows, such as "
                f"'chain up to 16 rows, thinned', but got {text!r:.200}"
            )
        return cls.of(names, (*limits, 0))
