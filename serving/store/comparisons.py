"""What true labels say about a shadow and the version that answers, on rows that both answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import orjson
import sqlalchemy as sa

from dubio.serving.store.accuracy import Accuracy
from dubio.serving.store.tables import answers, comparisons, shadow_answers

_IS_ROW = (shadow_answers.c.request_id == answers.c.request_id) & (shadow_answers.c.row_number == answers.c.row_number)


class Compared(Protocol):
    """Who is compared with whom, and on which terms."""

    @property
    def digest(self) -> str:
        """By which rows name it."""

    @property
    def content(self) -> str:
        """All of it as JSON, with `margin` and `epsilon`."""

    @property
    def margin(self) -> float:
        """By how much the shadow may be right less often."""

    @property
    def epsilon(self) -> float:
        """How likely a worse one may be taken for one that is not, ever."""


def read(connection: sa.Connection, pair: Compared) -> Accuracy:
    """What is known about a pair."""
    query = sa.select(comparisons.c.state).where(comparisons.c.digest == pair.digest)
    state = connection.execute(query).scalar_one_or_none()
    return Accuracy.begin(pair.margin, pair.epsilon) if state is None else Accuracy.load(orjson.loads(state))


def note(connection: sa.Connection, request_id: str, row: int, label: str) -> None:
    """Note the true label of a row, if a shadow answered it, too.

    Args:
        connection: To write with.
        request_id: Of the request.
        row: Of the request.
        label: The true class.
    """
    is_it = (shadow_answers.c.request_id == request_id) & (shadow_answers.c.row_number == row)
    for digest in sorted(connection.execute(sa.select(shadow_answers.c.comparison).where(is_it)).scalars()):
        _judge(connection, digest, is_it & (shadow_answers.c.comparison == digest), label)


def lock(connection: sa.Connection, requests: Collection[str]) -> None:
    """Hold all pairs that answered these requests, in one order, so that nobody waits in a circle."""
    theirs = sa.select(shadow_answers.c.comparison).where(shadow_answers.c.request_id.in_(requests))
    query = sa.select(comparisons.c.digest).where(comparisons.c.digest.in_(theirs)).order_by(comparisons.c.digest)
    connection.execute(query.with_for_update()).all()


def note_known(connection: sa.Connection, identifiers: Sequence[str]) -> None:
    """Note the true labels that came before what a shadow said; none where requests of one name had other inputs.

    Args:
        connection: To write with.
        identifiers: Of new rows of `shadow_answers`.
    """
    other = answers.alias()
    is_ambiguous = sa.exists().where(
        other.c.request_id == answers.c.request_id,
        other.c.row_number == answers.c.row_number,
        (other.c.model != answers.c.model) | (other.c.input_sha256 != answers.c.input_sha256),
    )
    query = (
        sa.select(shadow_answers.c.comparison, shadow_answers.c.id, answers.c.true_label)
        .join(answers, _IS_ROW)
        .where(shadow_answers.c.id.in_(identifiers), answers.c.true_label.is_not(None), ~is_ambiguous)
        .order_by(shadow_answers.c.comparison, shadow_answers.c.id)
        .distinct()
    )
    for digest, identifier, label in connection.execute(query).all():
        _judge(connection, digest, shadow_answers.c.id == identifier, label)


def _judge(connection: sa.Connection, digest: str, is_it: sa.ColumnElement[bool], label: str) -> None:
    """Count one row, once however often its label is told."""
    # Whoever holds this row of `comparisons` is the only one who counts for this pair.
    query = sa.select(comparisons.c.content, comparisons.c.state).where(comparisons.c.digest == digest)
    content, state = connection.execute(query.with_for_update()).one()
    row = connection.execute(sa.select(shadow_answers).where(is_it)).mappings().one()
    if row["true_label"] == label:
        return
    if state is None:
        terms = orjson.loads(content)
        known = Accuracy.begin(terms["margin"], terms["epsilon"])
    else:
        known = Accuracy.load(orjson.loads(state))
    said = (row["live_label"], row["shadow_label"])
    live, shadow = (each == label for each in said)
    if row["true_label"] is None:
        known = known.observe(live=live, shadow=shadow)
    else:
        first, second = (each == row["true_label"] for each in said)
        known = known.correct((first, second), (live, shadow))
    connection.execute(sa.update(shadow_answers).where(shadow_answers.c.id == row["id"]).values(true_label=label))
    change = sa.update(comparisons).where(comparisons.c.digest == digest)
    connection.execute(change.values(state=orjson.dumps(known.dump()).decode()))
