from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import ROUTES, Unlisted, scope_of

KEYS = {
    Scope.INFER: "infer-key-0123456789",
    Scope.ADMIN: "admin-key-0123456789",
    Scope.METRICS: "metrics-key-0123456789",
}


@pytest.fixture
def guarded(serve: Callable, settings: Callable, numbers_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a service with a key for each scope; it sends none by itself."""
    text = " ".join(f"{scope}:{key}" for scope, key in KEYS.items())
    given = settings(models=(str(numbers_checkpoint),), api_keys=text, cors_origins=("https://app.example.org",))
    with serve(given) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def filled(path: str) -> str:
    return path.replace("{name}", "row").replace("{version}", "1")


def test_every_route_is_closed_or_listed_as_open(guarded: httpx.Client) -> None:
    """Sends real requests to every route there is, as described by the API itself and by the table."""
    described = guarded.get("/openapi.json").json()["paths"]
    calls = {(method.upper(), path) for path, operations in described.items() for method in operations}
    assert {path for _, path in calls} <= set(ROUTES), "routes that access.py does not know"
    calls |= {("GET", path) for path in ROUTES}
    for method, path in sorted(calls):
        scope = ROUTES[path]
        for owner, key in {None: None, **KEYS}.items():
            headers = {} if key is None else {"X-API-Key": key}
            status = guarded.request(method, filled(path), headers=headers).status_code
            if scope is None or owner is scope:
                assert status not in (401, 403), (method, path, owner)
            else:
                assert status == (401 if owner is None else 403), (method, path, owner)


def test_a_route_that_nobody_listed_needs_an_administrator(guarded: httpx.Client) -> None:
    for path in ["/new/route", "/v1/models/row/other", "/v2/repository/new", "/metrics\n", "//metrics", "/METRICS"]:
        assert scope_of(path) in (Unlisted, Scope.ADMIN)
    assert guarded.get("/new/route").status_code == 401
    assert guarded.get("/new/route", headers={"X-API-Key": KEYS[Scope.INFER]}).status_code == 403
    assert guarded.get("/new/route", headers={"X-API-Key": KEYS[Scope.ADMIN]}).status_code == 404


def test_a_key_comes_in_either_header(guarded: httpx.Client) -> None:
    key = KEYS[Scope.INFER]
    good: list[dict[str, str]] = [
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}", "X-API-Key": key},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": key},
    ]
    bad: list[dict[str, str]] = [
        {"Authorization": key},
        {"Authorization": f"Basic {key}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
        {"X-API-Key": key + "x"},
        {"Authorization": f"Bearer {KEYS[Scope.METRICS]}", "X-API-Key": key},
        {"Cookie": f"key={key}"},
    ]
    assert [guarded.get("/v1/models", headers=headers).status_code for headers in good] == [200] * len(good)
    assert [guarded.get("/v1/models", headers=headers).status_code for headers in bad] == [401] * len(bad)
    assert guarded.get("/v1/models", params={"api_key": key}).status_code == 401


def test_refusals_come_in_the_form_of_each_api(guarded: httpx.Client) -> None:
    native = guarded.get("/v1/models")
    assert native.headers["content-type"] == "application/problem+json"
    assert native.json()["title"] == "Unauthorized"
    assert native.headers["www-authenticate"].startswith("Bearer")
    assert native.headers["x-request-id"] == native.json()["request_id"]

    inference = guarded.post("/v2/models/row/infer", json={}, headers={"X-API-Key": KEYS[Scope.METRICS]})
    assert inference.status_code == 403
    assert "scope infer" in inference.json()["error"]
    for key in KEYS.values():
        assert key not in native.text + inference.text


def test_a_refused_request_is_not_worked_on(guarded: httpx.Client) -> None:
    """The answer comes before the body, which is never read."""
    with httpx.Client(base_url=guarded.base_url, timeout=5) as client:
        answer = client.post("/v1/predict", content=b"{", headers={"X-API-Key": "nobody-knows-this-key"})
    assert answer.status_code == 401


def test_browsers_of_listed_origins_may_ask_and_read_refusals(guarded: httpx.Client) -> None:
    origin = {"Origin": "https://app.example.org"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = guarded.options("/v1/predict", headers={**origin, **asked})
    assert preflight.status_code == 200  # without a key: browsers send none with it
    assert preflight.headers["access-control-allow-origin"] == origin["Origin"]
    refused = guarded.get("/v1/models", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin["Origin"]
    stranger = guarded.get("/v1/models", headers={"Origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in stranger.headers


def test_without_keys_all_is_open_but_administration_is_off(client: httpx.Client) -> None:
    assert client.get("/v1/models").status_code == 200
    assert client.get("/metrics").status_code == 200
    for path in ["index", "models/bars/load", "models/bars/unload", "index%0a", "models/bars/load/"]:
        answer = client.post(f"/v2/repository/{path}")
        assert answer.status_code == 403, path
        assert "Administration is off" in answer.json()["error"]
    answer = client.get("/v1/models", headers={"Origin": "https://app.example.org"})
    assert "access-control-allow-origin" not in answer.headers


def test_the_description_says_which_calls_want_a_key(guarded: httpx.Client, client: httpx.Client) -> None:
    for path, operations in guarded.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (ROUTES[path] is not None), path
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_the_table_is_read_as_routes_are() -> None:
    assert scope_of("/v2/models/a/versions/1/infer") is Scope.INFER
    assert scope_of("/v2/models/a/b/infer") is Unlisted
    assert scope_of("/v2/models//infer") is Unlisted
    assert scope_of("/v2/health/live") is None
    assert scope_of("/v2/health/live/") is Unlisted
