"""The one place where errors become HTTP: a table from error to status and title, and two error formats."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, cast

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from dubio.models.errors import InvalidInput, ModelError
from dubio.serving import errors
from dubio.serving.wire.schema import ForeignError, Problem, describe_content, describe_errors
from dubio.uncertainty.errors import UncertaintyError

_log = logging.getLogger("dubio")


class ProblemType(NamedTuple):
    """What an error means to an HTTP client, as RFC 9457 calls it.

    Attributes:
        status: Of the answer.
        title: The same for every error of the type.
    """

    status: int
    title: str

    @property
    def slug(self) -> str:
        """The title as a word, for metrics and logs; as bounded as the table."""
        return self.title.lower().replace(" ", "_").replace("-", "_")


# An error is looked up by its class, then by its base classes in order.
TABLE: Mapping[type[Exception], ProblemType] = {
    errors.MalformedJSON: ProblemType(400, "Malformed JSON"),
    errors.InvalidRequest: ProblemType(422, "Invalid request"),
    InvalidInput: ProblemType(422, "Invalid input"),
    errors.UnknownModel: ProblemType(404, "Unknown model"),
    errors.LoadFailed: ProblemType(422, "Load failed"),
    errors.ControlRefused: ProblemType(409, "Control refused"),
    errors.StoreOff: ProblemType(409, "Store off"),
    errors.AmbiguousFeedback: ProblemType(409, "Ambiguous feedback"),
    errors.UnknownReview: ProblemType(404, "Unknown review"),
    errors.StoreUnavailable: ProblemType(503, "Store unavailable"),
    errors.UnknownShadow: ProblemType(404, "Unknown shadow"),
    errors.PromotionRefused: ProblemType(409, "Promotion refused"),
    errors.NotWatched: ProblemType(409, "Not watched"),
    errors.UnknownService: ProblemType(404, "Unknown service"),
    errors.UnsupportedCall: ProblemType(501, "Unsupported call"),
    errors.Unauthorized: ProblemType(401, "Unauthorized"),
    errors.Forbidden: ProblemType(403, "Forbidden"),
    errors.Misdirected: ProblemType(421, "Misdirected request"),
    errors.CrossOrigin: ProblemType(403, "Cross-origin request"),
    errors.TooManyRows: ProblemType(413, "Too many rows"),
    errors.BodyTooLarge: ProblemType(413, "Body too large"),
    errors.BodyTooSlow: ProblemType(408, "Body too slow"),
    errors.UnsupportedEncoding: ProblemType(415, "Unsupported encoding"),
    errors.UnsupportedContentType: ProblemType(415, "Unsupported content type"),
    errors.NotReady: ProblemType(503, "Not ready"),
    errors.TooManyCalls: ProblemType(429, "Too many calls"),
    errors.Overloaded: ProblemType(503, "Overloaded"),
    errors.OutOfMemory: ProblemType(503, "Out of memory"),
    errors.ComputationLost: ProblemType(503, "Computation lost"),
    errors.DeviceLost: ProblemType(503, "Device lost"),
    errors.Stopping: ProblemType(503, "Stopping"),
    errors.DeadlineExceeded: ProblemType(504, "Deadline exceeded"),
    # Not the caller's doing: what these say may name files of this machine, so it is logged and not sent.
    errors.ServingError: ProblemType(500, "Internal error"),
    ModelError: ProblemType(500, "Internal error"),
    UncertaintyError: ProblemType(500, "Internal error"),
    Exception: ProblemType(500, "Internal error"),
}
# The framework's own.
_NO_ROUTE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
REASONS = sorted({kind.slug for kind in (*TABLE.values(), *(ProblemType(each, each.phrase) for each in _NO_ROUTE))})
"""The word for every error, by which it is counted."""

# What routes raise on purpose. The outermost middleware answers the rest, so that it is counted and named too.
EXPECTED = tuple(kind for kind in TABLE if kind is not Exception)


def install(app: FastAPI, routes: Sequence[BaseRoute] = ()) -> None:
    """Answer every error of `app`, the framework's own included, in the format of its path.

    Args:
        app: The application.
        routes: All of its routes; the framework knows the methods of the first one alone of those with the same path.
    """

    async def answer_framework(request: Request, raised: Exception) -> Response:
        paths = [getattr(each, "path", "") for each in routes if each.matches(request.scope)[0] is not Match.NONE]
        sharing = [each for each in routes if getattr(each, "path", "") in paths[:1]]
        methods = {method for each in sharing for method in getattr(each, "methods", None) or ()}
        return _answer_framework(request, raised, sorted(methods))

    for kind in EXPECTED:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, answer_framework)


def describe(path: str, *statuses: int) -> dict[str, Any]:
    """OpenAPI for errors of these statuses that a layer before the routes answers at a path."""
    content = (
        describe_content(ForeignError) if _is_foreign(path) else describe_content(Problem, "application/problem+json")
    )
    return {str(status): value for status, value in describe_errors({"content": content}, *statuses).items()}


def internal_error(request: Request, error: Exception) -> Response:
    """Log `error` with its trace and answer 500 without it."""
    detail = log_internal(request.state.request_id, request.url.path, error)
    return _respond(request, TABLE[Exception], detail)


def log_internal(request_id: str, path: str, error: Exception) -> str:
    """Log `error` with its trace; gives what its caller is told instead."""
    _log.error("Request %s to %r failed.", request_id, path, exc_info=error)
    return f"The service could not answer. Its log says why, under request id {request_id}."


def classify(error: Exception) -> ProblemType:
    """What an error means."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def answer(request: Request, error: Exception) -> Response:
    """What a request that met `error` is told."""
    problem_type = classify(error)
    if problem_type.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error(request, error)
    headers = {}
    if isinstance(error, errors.Overloaded | errors.ComputationLost):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="dubio"'
    return _respond(request, problem_type, str(error), headers=headers)


async def _answer(request: Request, error: Exception) -> Response:
    return answer(request, error)


def _answer_framework(request: Request, raised: Exception, methods: Sequence[str]) -> Response:
    error = cast(HTTPException, raised)  # starlette hands over what the handler was registered for
    path = request.url.path[:200]
    detail, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {path!r}; /docs lists what there is."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(methods) or headers.get("Allow", "another method")
        if methods or "Allow" in headers:
            headers["Allow"] = f"{allowed}, HEAD" if "GET" in allowed else allowed
        detail = f"Expected {allowed} at {path!r}, but got {request.method[:20]}; /docs shows an example."
    problem_type = ProblemType(error.status_code, HTTPStatus(error.status_code).phrase)
    return _respond(request, problem_type, detail, headers=headers)


def foreign_status(status: int) -> int:
    """As the clients of protocols of others expect it: 400 for whatever is wrong with a request's content."""
    return HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def _is_foreign(path: str) -> bool:
    """Whether errors at a path come as `{"error": "..."}`, as the clients of a protocol of others read them."""
    return path.startswith("/v2") or path.endswith(":predict")


def _respond(
    request: Request, problem_type: ProblemType, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    status, title = problem_type
    request.state.refused = problem_type.slug
    if _is_foreign(request.url.path):
        status = foreign_status(status)
        return Response(orjson.dumps({"error": detail}), status, headers, "application/json")
    framework = title == HTTPStatus(status).phrase
    problem = {
        "type": "about:blank" if framework else f"urn:dubio:problem:{problem_type.slug.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request.state.request_id,
    }
    return Response(orjson.dumps(problem), status, headers, "application/problem+json")
