"""What is stored, page by page, and what a reviewer says about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from dubio.models.errors import did_you_mean
from dubio.serving.errors import InvalidRequest, UnknownReview
from dubio.serving.store.tables import LONGEST_LABEL, State, answers, begin_of, signatures

Row = sa.RowMapping


@dataclass(frozen=True)
class Filter:
    """Which rows; what is None is not looked at.

    Attributes:
        model: Name of the model.
        version: Of the model.
        reason: Of the flag.
        state: Of the review.
        kept: Why the row was kept.
        request_id: Of the request.
        since_ms: Not older.
        until_ms: Older.
    """

    model: str | None = None
    version: str | None = None
    reason: str | None = None
    state: str | None = None
    kept: str | None = None
    request_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """As SQL."""
        names = ("model", "version", "reason", "state", "kept", "request_id")
        given = {name: getattr(self, name) for name in names}
        equal = [answers.c[name] == value for name, value in given.items() if value is not None]
        # Identifiers begin with the time, and are in an index.
        since = [] if self.since_ms is None else [answers.c.id >= begin_of(self.since_ms)]
        until = [] if self.until_ms is None else [answers.c.id < begin_of(self.until_ms)]
        return [*equal, *since, *until]


@dataclass(frozen=True)
class Page:
    """Some rows, the newest first.

    Attributes:
        rows: Of `answers`, each with the `content` of its signature.
        after: Where the next page begins; None where there is none.
    """

    rows: Sequence[Row]
    after: str | None


def list_page(connection: sa.Connection, which: Filter, *, limit: int, after: str | None, inputs: bool) -> Page:
    """A page of rows. What is written meanwhile moves nothing from one page to another.

    Args:
        connection: To read with.
        which: Rows.
        limit: How many at most.
        after: The last identifier of the page before.
        inputs: Whether with their inputs.
    """
    columns = [column for column in answers.c if inputs or column is not answers.c.input]
    query = _select(columns).where(*which.conditions()).order_by(answers.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(answers.c.id < after)
    rows = connection.execute(query).mappings().all()
    return Page(rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None)


def get(connection: sa.Connection, identifier: str) -> Row:
    """One row, with its input.

    Raises:
        UnknownReview: There is none.
    """
    row = connection.execute(_select(list(answers.c)).where(answers.c.id == identifier)).mappings().one_or_none()
    if row is None:
        raise UnknownReview(
            f"There is no stored answer {identifier[:40]!r}; it may have been too old, or one too many, for the store."
        )
    return row


def review(connection: sa.Connection, identifier: str, state: State, label: str | None, *, new_label: bool) -> Row:
    """Note what a reviewer says, in place of what was said before.

    Args:
        connection: To write with.
        identifier: Of the row.
        state: Of the review.
        label: Where the row is labelled.
        new_label: Whether the label may be none of the model's classes.

    Returns:
        The row as it is then.

    Raises:
        UnknownReview: There is no such row.
        InvalidRequest: The label is no class of the model.
    """
    row = get(connection, identifier)
    if label is not None and not new_label:
        require_class(label, row["content"])
    reviewed_ms = None if state is State.OPEN else time.time_ns() // 1_000_000
    change = sa.update(answers).where(answers.c.id == identifier)
    connection.execute(change.values(state=state.value, review_label=label, reviewed_ms=reviewed_ms))
    return get(connection, identifier)


def require_class(label: str, signature: str) -> None:
    """Refuse what is no class of the model that answered.

    Raises:
        InvalidRequest: It is none.
    """
    classes = orjson.loads(signature)["classes"]
    if label not in classes:
        some = ", ".join(repr(name[:40]) for name in classes[:5]) + (", ..." if len(classes) > 5 else "")
        cure = did_you_mean(label, classes, f"its classes: {some}.")
        raise InvalidRequest(
            f"Expected `label` to be a class of the model, but got {label[:40]!r}; {cure} For a class that it does "
            f"not know, of at most {LONGEST_LABEL} characters, send `new_label: true` with it."
        )


def _select(columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    return sa.select(*columns, signatures.c.content).join(signatures, signatures.c.digest == answers.c.signature)
