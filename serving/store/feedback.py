"""True labels that come later, joined to the answers that they are of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dubio.serving.errors import AmbiguousFeedback, InvalidRequest
from dubio.serving.store import comparisons
from dubio.serving.store.reviews import require_class
from dubio.serving.store.tables import answers, signatures


@dataclass(frozen=True)
class Truth:
    """What one row of a request really was.

    Attributes:
        request_id: Of the request.
        row: Of the request, counted from 0.
        label: The true class.
        new_label: Whether it may be none of the model's classes.
    """

    request_id: str
    row: int
    label: str
    new_label: bool = False


def join(connection: sa.Connection, truths: Sequence[Truth]) -> list[int]:
    """Note true labels, all of them or none.

    Args:
        connection: To write with.
        truths: Of rows that may be stored.

    Returns:
        The places in `truths` of those whose row is not stored.

    Raises:
        AmbiguousFeedback: Several requests had this name, and other inputs.
        InvalidRequest: A label is no class of the model that answered, or a row has two.
    """
    _refuse_contradictions(truths)
    unknown: list[int] = []
    now_ms = time.time_ns() // 1_000_000
    known: list[Truth] = []
    for place, truth in sorted(enumerate(truths), key=lambda each: (each[1].request_id, each[1].row)):
        is_it = (answers.c.request_id == truth.request_id) & (answers.c.row_number == truth.row)
        query = (
            sa.select(answers.c.model, answers.c.input_sha256, signatures.c.content)
            .join(signatures, signatures.c.digest == answers.c.signature)
            .where(is_it)
            .distinct()
        )
        found = connection.execute(query).all()
        if not found:
            unknown.append(place)
            continue
        if len(found) > 1:
            raise AmbiguousFeedback(
                f"Expected one input for row {truth.row} of request {truth.request_id!r}, but {len(found)} requests "
                "of this name had different ones; give every request an X-Request-Id of its own."
            )
        if not truth.new_label:
            require_class(truth.label, found[0].content)
        connection.execute(sa.update(answers).where(is_it).values(true_label=truth.label, feedback_ms=now_ms))
        known.append(truth)
    comparisons.lock(connection, {truth.request_id for truth in known})
    for truth in known:
        comparisons.note(connection, truth.request_id, truth.row, truth.label)
    return sorted(unknown)


def _refuse_contradictions(truths: Sequence[Truth]) -> None:
    labels: dict[tuple[str, int], str] = {}
    for truth in truths:
        told = labels.setdefault((truth.request_id, truth.row), truth.label)
        if told != truth.label:
            raise InvalidRequest(
                f"Expected one label for row {truth.row} of request {truth.request_id!r}, but got {told[:40]!r} and "
                f"{truth.label[:40]!r}; send the right one."
            )
