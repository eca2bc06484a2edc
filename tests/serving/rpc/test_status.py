from __future__ import annotations

import logging

import pytest
from grpc import StatusCode

from dubio.models.errors import InvalidInput
from dubio.serving import errors
from dubio.serving.http import problem_details
from dubio.serving.rpc.status import refuse


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidRequest("x"), 400, StatusCode.INVALID_ARGUMENT),
        (InvalidInput("x"), 400, StatusCode.INVALID_ARGUMENT),
        (errors.TooManyRows("x"), 413, StatusCode.INVALID_ARGUMENT),
        (errors.UnknownModel("x"), 404, StatusCode.NOT_FOUND),
        (errors.Unauthorized("x"), 401, StatusCode.UNAUTHENTICATED),
        (errors.Forbidden("x"), 403, StatusCode.PERMISSION_DENIED),
        (errors.ControlRefused("x"), 409, StatusCode.FAILED_PRECONDITION),
        (errors.NotReady("x"), 503, StatusCode.UNAVAILABLE),
        (errors.Stopping("x"), 503, StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded("x"), 504, StatusCode.DEADLINE_EXCEEDED),
        (errors.UnsupportedCall("x"), 501, StatusCode.UNIMPLEMENTED),
        (errors.TooManyCalls("x", retry_after=1), 429, StatusCode.RESOURCE_EXHAUSTED),
        (errors.Overloaded("x", retry_after=1), 503, StatusCode.UNAVAILABLE),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: StatusCode) -> None:
    refusal = refuse(error, request_id="r", path="/x")
    assert (refusal.status, refusal.code, refusal.detail) == (status, code, "x")


def test_every_error_of_http_has_a_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "dubio")
    for kind, problem in problem_details.TABLE.items():
        error = kind.__new__(kind)
        error.args, error.retry_after = ("x",), 1  # type: ignore[attr-defined]
        refusal = refuse(error, request_id="r", path="/x")
        assert refusal.reason == problem.slug
        assert (refusal.code is StatusCode.INTERNAL) == (problem.status == 500)


def test_what_clients_look_at_to_come_back_is_there() -> None:
    refusal = refuse(errors.Overloaded("x", retry_after=7), request_id="r", path="/x")
    assert refusal.metadata == (("retry-after", "7"), ("grpc-retry-pushback-ms", "7000"))
    lost = refuse(errors.ComputationLost("It ended"), request_id="r", path="/x")
    assert (lost.code, dict(lost.metadata)["retry-after"]) == (StatusCode.UNAVAILABLE, "5")


def test_a_long_text_is_cut_to_what_a_head_may_hold() -> None:
    detail = refuse(errors.InvalidRequest("ü" * 100_000), request_id="r", path="/x").detail
    assert detail.endswith(" (cut)")
    assert 9 * len(detail) < 8192
