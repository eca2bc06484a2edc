"""What a shadow said about rows that the store keeps, until it is in the database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sqlalchemy import Table

from dubio.serving.store.comparisons import Compared
from dubio.serving.store.inputs import StoredInput
from dubio.serving.store.tables import comparisons, identifier, new_token, shadow_answers

ROW_BYTES = 512
"""That a row takes, about."""


@dataclass(frozen=True)
class ShadowRows:
    """Some of the rows of one request, and what both versions said about them.

    Attributes:
        pair: Who is compared.
        request_id: Of the request.
        numbers: Of the rows in the request.
        live: Labels of the version that answered.
        shadow: Labels of the shadow; None where it refused the row.
        created_ms: When that was.
        token: Tells these rows from those of another request in the same millisecond.
    """

    table: ClassVar[Table] = shadow_answers
    parents: ClassVar[Table] = comparisons

    pair: Compared
    request_id: str
    numbers: Sequence[int]
    live: Sequence[str]
    shadow: Sequence[str | None]
    created_ms: int
    token: str

    @classmethod
    def of(
        cls,
        pair: Compared,
        request_id: str,
        numbers: Sequence[int],
        live: Sequence[str],
        shadow: Sequence[str | None],
    ) -> Self:
        """Take rows from a request.

        Args:
            pair: Who is compared.
            request_id: Of the request.
            numbers: The rows to take.
            live: Labels of all rows.
            shadow: Labels of all rows.
        """
        return cls(
            pair,
            request_id,
            numbers,
            [live[number] for number in numbers],
            [shadow[number] for number in numbers],
            time.time_ns() // 1_000_000,
            new_token(),
        )

    def __len__(self) -> int:
        """How many rows."""
        return len(self.numbers)

    @property
    def nbytes(self) -> int:
        """Memory that they take, about."""
        return len(self) * ROW_BYTES

    @property
    def parent(self) -> Compared:
        """What all of them are about."""
        return self.pair

    def to_database(self, stored: StoredInput) -> Iterator[dict[str, Any]]:
        """The rows as the table `shadow_answers` has them.

        Args:
            stored: How much of the inputs, of which these rows have none.
        """
        for number, live, shadow in zip(self.numbers, self.live, self.shadow, strict=True):
            yield {
                "id": identifier(self.created_ms, self.token, number),
                "comparison": self.pair.digest,
                "request_id": self.request_id,
                "row_number": number,
                "live_label": live,
                "shadow_label": shadow,
                "true_label": None,
            }
