"""The metrics' names, labels and buckets: the table in `docs/operations.md` describes exactly these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# In nats. A committee over C classes can disagree by ln C at most: 2.3 for ten classes.
_NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_CHANCES = (0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_POWERS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

_MODEL = ("model", "version")
UNMATCHED = "unmatched"
"""The label `route` of what matched none."""


@dataclass(frozen=True)
class Family:
    """One metric: a histogram if it has `bounds`, else a counter."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    @property
    def numbers(self) -> int:
        """How many make up a series: of a histogram one a bucket, one for what lies above all bounds, and the sum."""
        return len(self.bounds) + 2 if self.bounds else 1


REQUESTS = Family("dubio_requests", "Requests answered.", ("route", *_MODEL, "status"))
REQUEST_SECONDS = Family(
    "dubio_request_seconds", "Time from a request's head to the end of its answer.", ("route", *_MODEL), _SECONDS
)
REFUSED = Family("dubio_refused", "Requests that got an error for an answer, by reason.", (*_MODEL, "reason"))
ROWS = Family("dubio_rows", "Instances predicted.", _MODEL)
FLAGGED = Family("dubio_flagged", "Instances flagged as strangers, by reason.", (*_MODEL, "reason"))
MUTUAL_INFORMATION = Family(
    "dubio_mutual_information_nats", "How far the members disagree, per instance.", _MODEL, _NATS
)
P_VALUE = Family("dubio_p_value", "Conformal p-value, per instance.", _MODEL, _CHANCES)
QUEUE_SECONDS = Family("dubio_queue_seconds", "Wait of a request for its batch to begin.", _MODEL, _SECONDS)
COMPUTE_SECONDS = Family("dubio_compute_seconds", "Time a batch was computed.", _MODEL, _SECONDS)
BATCH_ROWS = Family("dubio_batch_rows", "Instances in a batch.", _MODEL, _POWERS)
STORE_WRITTEN = Family("dubio_store_written", "Rows that the store has on disk.", ())
STORE_DROPPED = Family("dubio_store_dropped", "Rows that the store could not take or write.", ())
LOST_LINES = Family("dubio_access_log_lines_lost", "Lines of the access log that were lost.", ())
MEMBERS = Family(
    "dubio_members", "Committee members that answered an instance; 0 if none was asked.", _MODEL, (0.0, *_POWERS)
)

SHADOW_ROWS = Family("dubio_shadow_rows", "Instances that a shadow answered, too.", _MODEL)
SHADOW_DISAGREEMENTS = Family("dubio_shadow_disagreements", "Those to which it gave another label.", _MODEL)
SHADOW_SKIPPED_ROWS = Family("dubio_shadow_skipped_rows", "Instances that a shadow had no time for.", _MODEL)


class ProtocolReason(StrEnum):
    """Why something was refused before it was a request."""

    MALFORMED_HTTP = "malformed_http"
    HEAD_TOO_LARGE = "head_too_large"
    HEAD_TOO_SLOW = "head_too_slow"
    TOO_MANY_PIPELINED = "too_many_pipelined"


FAMILIES = (
    REQUESTS,
    REQUEST_SECONDS,
    REFUSED,
    ROWS,
    FLAGGED,
    MUTUAL_INFORMATION,
    P_VALUE,
    QUEUE_SECONDS,
    COMPUTE_SECONDS,
    BATCH_ROWS,
    MEMBERS,
    STORE_WRITTEN,
    STORE_DROPPED,
    LOST_LINES,
    SHADOW_ROWS,
    SHADOW_DISAGREEMENTS,
    SHADOW_SKIPPED_ROWS,
)
OF_A_MODEL = tuple(family for family in FAMILIES if family.labels == _MODEL)
"""Those that a model has one series of."""
