"""The one place where errors become HTTP: a table from error to status and title, and two error formats."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dubio.models.errors import InvalidInput, ModelError
from dubio.serving import errors
from dubio.uncertainty.errors import UncertaintyError

_log = logging.getLogger("dubio")


class Case(NamedTuple):
    """What an error means to an HTTP client."""

    status: int
    title: str


# An error is looked up by its class, then by its base classes in order.
TABLE: Mapping[type[Exception], Case] = {
    errors.MalformedJSON: Case(400, "Malformed JSON"),
    errors.InvalidRequest: Case(422, "Invalid request"),
    InvalidInput: Case(422, "Invalid input"),
    errors.UnknownModel: Case(404, "Unknown model"),
    errors.LoadFailed: Case(422, "Load failed"),
    errors.ControlRefused: Case(409, "Control refused"),
    errors.Unauthorized: Case(401, "Unauthorized"),
    errors.Forbidden: Case(403, "Forbidden"),
    errors.TooManyRows: Case(413, "Too many rows"),
    errors.BodyTooLarge: Case(413, "Body too large"),
    errors.BodyTooSlow: Case(408, "Body too slow"),
    errors.UnsupportedEncoding: Case(415, "Unsupported encoding"),
    errors.NotReady: Case(503, "Not ready"),
    errors.Overloaded: Case(503, "Overloaded"),
    errors.Stopping: Case(503, "Stopping"),
    errors.DeadlineExceeded: Case(504, "Deadline exceeded"),
    # Not the caller's doing: what these say may name files of this machine, so it is logged and not sent.
    errors.ServingError: Case(500, "Internal error"),
    ModelError: Case(500, "Internal error"),
    UncertaintyError: Case(500, "Internal error"),
    Exception: Case(500, "Internal error"),
}
# What routes raise on purpose. The outermost middleware answers the rest, so that it is counted and named too.
EXPECTED = tuple(kind for kind in TABLE if kind is not Exception)


def install(app: FastAPI) -> None:
    """Answer every error of `app`, the framework's own included, in the format of its path."""
    for kind in EXPECTED:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _answer_framework)
    app.add_exception_handler(RequestValidationError, _answer_validation)


def internal_error(request: Request, error: Exception) -> Response:
    """Log `error` with its trace and answer 500 without it."""
    request_id = request.state.request_id
    _log.error("Request %s to %r failed.", request_id, request.url.path, exc_info=error)
    detail = f"The service could not answer. Its log says why, under request id {request_id}."
    return _respond(request, TABLE[Exception], detail)


def answer(request: Request, error: Exception) -> Response:
    """What a request that met `error` is told."""
    case = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    if case.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error(request, error)
    headers = {}
    if isinstance(error, errors.Overloaded):
        headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="dubio"'
    return _respond(request, case, str(error), headers=headers)


async def _answer(request: Request, error: Exception) -> Response:
    return answer(request, error)


async def _answer_framework(request: Request, raised: Exception) -> Response:
    error = cast(HTTPException, raised)  # starlette hands over what the handler was registered for
    case = Case(error.status_code, HTTPStatus(error.status_code).phrase)
    path = request.url.path[:200]
    detail = str(error.detail)
    if case.status == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {path!r}; /docs lists what there is."
    elif case.status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"Expected {allowed} at {path!r}, but got {request.method[:20]}; /docs shows an example."
    return _respond(request, case, detail, headers=error.headers)


async def _answer_validation(request: Request, error: Exception) -> Response:
    return _respond(request, TABLE[errors.InvalidRequest], str(error).splitlines()[0])


def _respond(request: Request, case: Case, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    slug = case.title.lower().replace(" ", "_")
    request.state.refused = slug  # for the metrics and the access log; as bounded as the table of errors
    if request.url.path.startswith("/v2"):
        # The protocol's clients expect 400 for whatever is wrong with a request's content.
        status = HTTPStatus.BAD_REQUEST if case.status == HTTPStatus.UNPROCESSABLE_ENTITY else case.status
        return Response(orjson.dumps({"error": detail}), status, headers, "application/json")
    framework = case.title == HTTPStatus(case.status).phrase
    problem = {
        "type": "about:blank" if framework else f"urn:dubio:problem:{case.title.lower().replace(' ', '-')}",
        "title": case.title,
        "status": case.status,
        "detail": detail,
        "request_id": request.state.request_id,
    }
    return Response(orjson.dumps(problem), case.status, headers, "application/problem+json")
