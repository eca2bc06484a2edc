"""Errors as gRPC has them: the same table as over HTTP, its statuses in gRPC's words."""

from __future__ import annotations

from typing import NamedTuple

from grpc import StatusCode

from dubio.serving.errors import ComputationLost, Overloaded
from dubio.serving.http import problem_details

_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.INVALID_ARGUMENT,
    415: StatusCode.UNIMPLEMENTED,
    421: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
# A status travels in a head, which clients bound at 8 KiB, and there one character may take nine bytes.
_LONGEST_DETAIL = 800

Metadata = tuple[tuple[str, str], ...]


class Refusal(NamedTuple):
    """What a call that met an error is told.

    Attributes:
        status: That of the same error over HTTP.
        code: That over gRPC.
        reason: A word for it, by which it is counted.
        detail: What was wrong, the rule, and how to mend it.
        metadata: Behind it.
    """

    status: int
    code: StatusCode
    reason: str
    detail: str
    metadata: Metadata = ()


def refuse(error: Exception, *, request_id: str, path: str) -> Refusal:
    """What a call that met `error` is told; what is not the caller's doing is logged instead.

    Args:
        error: Any.
        request_id: Of the call.
        path: Of the call.
    """
    problem = problem_details.classify(error)
    code = _CODES[problem.status]
    status = problem_details.foreign_status(problem.status)
    if code is StatusCode.INTERNAL:
        return Refusal(status, code, problem.slug, problem_details.log_internal(request_id, path, error))
    detail = str(error)
    if len(detail) > _LONGEST_DETAIL:
        detail = f"{detail[:_LONGEST_DETAIL]} (cut)"
    metadata: Metadata = ()
    if isinstance(error, Overloaded | ComputationLost):
        # The second is what gRPC's own retries look at.
        metadata = (
            ("retry-after", str(error.retry_after)),
            ("grpc-retry-pushback-ms", str(1000 * error.retry_after)),
        )
    return Refusal(status, code, problem.slug, detail, metadata)
