"""The tables of the store. `migrations/` makes them; a test holds both against each other."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    literal_column,
    text,
)

LONGEST_LABEL = 256
"""As many characters as the name of a class may have."""


class Kept(StrEnum):
    """Why a row was kept."""

    FLAGGED = "flagged"
    SAMPLED = "sampled"
    ASKED = "asked"


class State(StrEnum):
    """How far the review of a row is."""

    OPEN = "open"
    LABELLED = "labelled"
    NOT_FOR_US = "not_for_us"


_JUDGED = "(state <> 'open' OR true_label IS NOT NULL)"


def _only(condition: str) -> dict[str, Any]:
    """Keywords of an index that holds such rows alone."""
    return {f"{name}_where": text(condition) for name in ("sqlite", "postgresql")}


metadata = MetaData()

signatures = Table(
    "signatures",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", Text, nullable=False),  # JSON, see `dubio.serving.store.rows.Signature`
)
"""What the models that answered take, and their classes in the order of their probabilities."""

answers = Table(
    "answers",
    metadata,
    # Made by the service: milliseconds, a random number, row. It grows with time, and a row written twice stays one.
    Column("id", String(32), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("model", String(256), nullable=False),
    Column("version", String(64), nullable=False),
    Column("signature", String(64), nullable=False),  # the digest of one
    Column("kept", String(16), nullable=False),
    Column("share", Float, nullable=False),  # of such rows that are kept
    Column("bytes", Integer, nullable=False),
    Column("input_form", String(16), nullable=False),
    Column("input_sha256", String(64), nullable=False),
    Column("input", LargeBinary),
    Column("label", String(LONGEST_LABEL), nullable=False),
    Column("probability", Float, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("mc_label", String(LONGEST_LABEL)),
    Column("mc_probability", Float),
    Column("predictive_entropy", Float),
    Column("expected_entropy", Float),
    Column("mutual_information", Float),
    Column("flagged", Boolean),
    Column("p_value", Float),
    Column("level", Float),
    Column("reason", String(40)),
    Column("accepted", Boolean),
    Column("arrays", LargeBinary, nullable=False),  # JSON: probabilities, mean, std, label_set
    Column("state", String(16), nullable=False),
    Column("review_label", String(LONGEST_LABEL)),
    Column("reviewed_ms", BigInteger),
    Column("true_label", String(LONGEST_LABEL)),
    Column("feedback_ms", BigInteger),
    Index("answers_by_request", "request_id", "row_number"),
    Index("answers_by_model", "model", "id"),
    Index("answers_by_state", "state", "id", "bytes"),
    Index("answers_by_version", "model", "version", "id", "kept", "share"),
    Index("answers_by_reason", "reason", "id", **_only("reason IS NOT NULL")),
    Index("answers_asked", "kept", "id", **_only("kept = 'asked'")),
    Index("answers_judged", "model", "version", "id", **_only(_JUDGED)),
)
"""One predicted row each: the answer, its input, and what was said about it later."""

IS_JUDGED: ColumnElement[bool] = literal_column(_JUDGED)
"""That something was said about a row; in the words of the index, which is found by them."""
TRUTH = func.coalesce(answers.c.review_label, answers.c.true_label)
"""What a row really was: a reviewer looked at it, so that word goes before that of feedback."""

comparisons = Table(
    "comparisons",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", Text, nullable=False),  # JSON, see `dubio.serving.shadow.comparison.Pair`
    Column("state", Text),  # JSON, see `dubio.serving.store.accuracy.Accuracy`
)
"""Who was compared with whom, and what true labels say about both."""

shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("id", String(32), primary_key=True),  # begins with the time, as in `answers`
    Column("comparison", String(64), nullable=False),  # the digest of one
    Column("request_id", String(128), nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("live_label", String(LONGEST_LABEL), nullable=False),
    Column("shadow_label", String(LONGEST_LABEL)),
    Column("true_label", String(LONGEST_LABEL)),
    Index("shadow_answers_by_request", "request_id", "row_number", "comparison", unique=True),
)
"""What both said about a row that is kept whatever was said about it."""

_TOKEN_BYTES = 6


def new_token() -> str:
    """What tells the rows of one request from those of another in the same millisecond."""
    return secrets.token_hex(_TOKEN_BYTES)


def identifier(created_ms: int, token: str, number: int) -> str:
    """Of a row, by its number in the request: 32 hexadecimal digits, in the order of time."""
    return f"{begin_of(created_ms)}{token}{number:08x}"


def begin_of(created_ms: int) -> str:
    """How identifiers of rows begin that were made in this millisecond."""
    return f"{created_ms:012x}"
