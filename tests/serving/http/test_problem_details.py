"""What an HTTP client is told about each error, in both formats."""

from __future__ import annotations

import json
import logging

import pytest
from starlette.requests import Request
from starlette.responses import Response

from dubio.models.errors import InvalidInput, ModelError, UnreadableCheckpoint
from dubio.serving import errors
from dubio.serving.http import problem_details
from dubio.uncertainty.errors import UncertaintyError

# Status over `/v1`, status over `/v2`, and the reason that metrics and logs give.
PROMISED: list[tuple[Exception, int, int, str]] = [
    (errors.MalformedJSON("x"), 400, 400, "malformed_json"),
    (errors.InvalidRequest("x"), 422, 400, "invalid_request"),
    (InvalidInput("x"), 422, 400, "invalid_input"),
    (errors.Unauthorized("x"), 401, 401, "unauthorized"),
    (errors.Forbidden("x"), 403, 403, "forbidden"),
    (errors.UnknownModel("x"), 404, 404, "unknown_model"),
    (errors.BodyTooSlow("x"), 408, 408, "body_too_slow"),
    (errors.ControlRefused("x"), 409, 409, "control_refused"),
    (errors.TooManyRows("x"), 413, 413, "too_many_rows"),
    (errors.BodyTooLarge("x"), 413, 413, "body_too_large"),
    (errors.UnsupportedEncoding("x"), 415, 415, "unsupported_encoding"),
    (errors.LoadFailed("x"), 422, 400, "load_failed"),
    (errors.NotReady("x"), 503, 503, "not_ready"),
    (errors.Overloaded("x", retry_after=7), 503, 503, "overloaded"),
    (errors.Stopping("x"), 503, 503, "stopping"),
    (errors.DeadlineExceeded("x"), 504, 504, "deadline_exceeded"),
    # Not the caller's doing.
    (errors.SelfTestFailed("x"), 500, 500, "internal_error"),
    (ModelError("x"), 500, 500, "internal_error"),
    (UnreadableCheckpoint("/a/file", "x"), 500, 500, "internal_error"),
    (UncertaintyError("x"), 500, 500, "internal_error"),
    (RuntimeError("x"), 500, 500, "internal_error"),
]


def answer(path: str, error: Exception) -> tuple[Request, Response]:
    request = Request({"type": "http", "method": "POST", "path": path, "headers": [], "state": {"request_id": "r-1"}})
    return request, problem_details.answer(request, error)


@pytest.mark.parametrize(("error", "status", "protocol_status", "reason"), PROMISED, ids=lambda value: repr(value)[:30])
def test_each_error_is_told_as_promised_in_the_format_of_its_path(
    error: Exception, status: int, protocol_status: int, reason: str
) -> None:
    request, response = answer("/v1/predict", error)
    problem = json.loads(response.body)
    assert response.status_code == problem["status"] == status
    assert response.media_type == "application/problem+json"
    ours = f"urn:dubio:problem:{reason.replace('_', '-')}"
    assert problem["type"] == ("about:blank" if reason in ("unauthorized", "forbidden") else ours)
    assert problem["title"].lower().replace(" ", "_") == request.state.refused == reason
    assert problem["request_id"] == "r-1"

    request, response = answer("/v2/models/m/infer", error)
    assert response.status_code == protocol_status
    assert set(json.loads(response.body)) == {"error"}
    assert request.state.refused == reason


def test_what_is_not_the_callers_doing_is_logged_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="dubio"):
        _, response = answer("/v1/predict", UnreadableCheckpoint("/secret/path", "broken"))
    assert b"secret" not in response.body
    assert b"r-1" in response.body
    assert "secret" in caplog.text


def test_clients_are_told_when_to_come_again_and_how_to_show_a_key() -> None:
    assert answer("/v1/predict", errors.Overloaded("x", retry_after=7))[1].headers["retry-after"] == "7"
    assert answer("/v2", errors.Unauthorized("x"))[1].headers["www-authenticate"] == 'Bearer realm="dubio"'
