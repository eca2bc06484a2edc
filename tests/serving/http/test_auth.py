"""Who may call what, by real requests to every route."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send

from dubio.serving.app import create_app
from dubio.serving.http import problem_details
from dubio.serving.http.api_keys import ApiKeys, Scope
from dubio.serving.http.auth import OPEN, ScopedRouter
from dubio.serving.http.middleware import AuthMiddleware, FastPath

KEYS = {
    Scope.INFER: "infer-key-0123456789",
    Scope.REVIEW: "review-key-0123456789",
    Scope.ADMIN: "admin-key-0123456789",
    Scope.METRICS: "metrics-key-0123456789",
}
HEADERS: dict[Scope | None, dict[str, str]] = {None: {}, **{scope: {"X-API-Key": key} for scope, key in KEYS.items()}}

FOLDER = files("dubio.serving.web").joinpath("static")
STATIC = [file.name for file in FOLDER.iterdir() if file.is_file()]
VENDOR = [file.name for file in FOLDER.joinpath("vendor").iterdir() if file.name != "LICENSE"]
# What the service promises. Whatever is not listed needs the scope infer.
POLICY: dict[str, Scope | None] = {
    **dict.fromkeys(["/v2/health/live", "/v2/health/ready"]),
    **dict.fromkeys(["/", "/docs", "/redoc", "/openapi.json"]),
    **dict.fromkeys(f"/static/{name}" for name in STATIC if name != "page.html"),
    **dict.fromkeys(f"/static/vendor/{name}" for name in VENDOR),
    **dict.fromkeys(f"/static/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js")),
    "/metrics": Scope.METRICS,
    **dict.fromkeys(["/v1/reviews", "/v1/reviews/{id}", "/v1/reviews/export"], Scope.REVIEW),
    "/v2/repository/index": Scope.ADMIN,
    "/v2/repository/models/{name}/load": Scope.ADMIN,
    "/v2/repository/models/{name}/unload": Scope.ADMIN,
    "/v1/models/{name}/promote": Scope.ADMIN,
}


def promised(method: str, path: str) -> Scope | None:
    # What is deleted, an administrator deletes.
    return Scope.ADMIN if method.upper() == "DELETE" else POLICY.get(path, Scope.INFER)


@pytest.fixture
def guarded(serve: Callable, settings: Callable, numbers_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a service with a key for each scope; it sends none by itself."""
    text = " ".join(f"{scope}:{key}" for scope, key in KEYS.items())
    given = settings(models=(str(numbers_checkpoint),), api_keys=text, cors_origins=("https://app.example.org",))
    with serve(given) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def filled(path: str) -> str:
    return path.replace("{name}", "row").replace("{version}", "1").replace("{id}", "0" * 32)


def test_every_route_is_closed_or_promised_to_be_open(guarded: httpx.Client) -> None:
    described = guarded.get("/openapi.json").json()["paths"]
    calls = {(method.upper(), path) for path, operations in described.items() for method in operations}
    assert len(calls) > 20
    calls |= {("GET", path) for path in [*POLICY, "/v2/"]}
    for method, path in sorted(calls):
        needed = promised(method, path)
        for owner, headers in HEADERS.items():
            status = guarded.request(method, filled(path), headers=headers).status_code
            if needed is None or owner is needed:
                assert status not in (401, 403), (method, path, owner)
            else:
                assert status == (401 if owner is None else 403), (method, path, owner)


def test_a_path_without_a_route_needs_an_administrator(guarded: httpx.Client) -> None:
    for path in ["/new/route", "/v1/models/row/other", "/v2/repository/new", "/METRICS", "/v2/models//infer", "/docs/"]:
        status = {owner: guarded.get(path, headers=headers).status_code for owner, headers in HEADERS.items()}
        assert status == {None: 401, **dict.fromkeys(KEYS, 403), Scope.ADMIN: 404}, path


def ask(app: ASGIApp, path: str, owner: Scope | None, method: str = "GET") -> int:
    async def named(scope: dict, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "r"
        await app(scope, receive, send)

    async def run() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(named), base_url="http://localhost") as client:
            return (await client.request(method, path, headers=HEADERS[owner])).status_code

    return asyncio.run(run())


def keys(*scopes: Scope) -> ApiKeys:
    return ApiKeys((KEYS[scope], frozenset([scope])) for scope in scopes)


def test_a_route_of_no_router_is_refused_although_it_is_there(settings: Callable, numbers_checkpoint: Path) -> None:
    """As if a developer had added a route to the framework and had said nothing about who may call it."""
    text = " ".join(f"{scope}:{key}" for scope, key in KEYS.items())
    application = create_app(settings(models=(str(numbers_checkpoint),), api_keys=text))

    @application.api.get("/v1/new")
    async def new() -> str:
        return "secret"

    status = {owner: ask(application.asgi, "/v1/new", owner) for owner in HEADERS}
    assert status == {None: 401, **dict.fromkeys(KEYS, 403), Scope.ADMIN: 200}


def guard(routers: list[ScopedRouter], known: ApiKeys) -> ASGIApp:
    """An application of these routers behind keys, whose calls go the short way."""
    api = FastAPI(redirect_slashes=False)
    for router in routers:
        api.include_router(router)
    problem_details.install(api)
    return AuthMiddleware(FastPath(api, [route for router in routers for route in router.routes]), known, routers)


def routers() -> list[ScopedRouter]:
    """Three whose paths overlap, the last one for administrators, and one of paths that are all for them."""
    first, second = ScopedRouter(OPEN, prefix="/a"), ScopedRouter(Scope.INFER, prefix="/a")
    third, admin = ScopedRouter(Scope.ADMIN, prefix="/a"), ScopedRouter(Scope.ADMIN, prefix="/admin")

    @first.get("/{name}")
    @second.post("/{name}")
    @second.get("/{name}/more")
    @third.delete("/{name}/more")
    @admin.post("/{name}")
    async def answer(request: Request, name: str) -> Response:
        return Response(name)

    return [first, second, third, admin]


@pytest.mark.parametrize(
    ("method", "path", "needed", "status"),
    [
        ("GET", "/a/x", OPEN, 200),
        ("POST", "/a/x", Scope.INFER, 200),  # the same path, but another route, which the short way answers
        ("DELETE", "/a/x", OPEN, 405),
        ("GET", "/a/x/more", Scope.INFER, 200),
        ("PUT", "/a/x/more", Scope.INFER, 405),
        ("DELETE", "/a/x/more", Scope.ADMIN, 200),  # the same path, but a route of the administrators
        ("GET", "/a/x/other", Scope.ADMIN, 404),
        ("GET", "/a//more", Scope.ADMIN, 404),
        ("POST", "/admin/x", Scope.ADMIN, 200),
        ("GET", "/admin/x/y", Scope.ADMIN, 404),
    ],
)
def test_what_is_needed_is_what_the_router_of_the_answering_route_says(
    method: str, path: str, needed: Scope | None, status: int
) -> None:
    app = guard(routers(), keys(*KEYS))
    for owner in HEADERS:
        refused = 401 if owner is None else 403
        expected = status if needed is OPEN or owner is needed else refused
        assert ask(app, path, owner, method) == expected, owner


def test_without_an_administrators_key_administration_is_off_for_everybody() -> None:
    for known in (keys(), keys(Scope.INFER)):
        app = guard(routers(), known)
        for path in ("/admin/x", "/admin/x/y"):
            assert [ask(app, path, owner, "POST") for owner in HEADERS] == [403] * len(HEADERS)
    # Among paths of others these alone are off.
    assert [ask(guard(routers(), keys()), "/a/x/more", owner, "DELETE") for owner in HEADERS] == [403] * len(HEADERS)
    assert [ask(guard(routers(), keys()), "/a/x/more", owner) for owner in HEADERS] == [200] * len(HEADERS)
    assert ask(guard(routers(), keys()), "/a/x/other", None) == 404


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


def test_what_is_refused_is_counted_under_its_route(guarded: httpx.Client) -> None:
    for path in ("/v1/predict", "/v1/models/row/predict", "/v1/models/row/predict", "/v1/nowhere"):
        assert guarded.post(path, json={}, headers={"X-API-Key": "nobody-knows-this-key"}).status_code == 401
    text = guarded.get("/metrics", headers=HEADERS[Scope.METRICS]).text
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "dubio_requests_total" and sample.labels["status"] == "401":
                counted[sample.labels["route"]] += int(sample.value)
    assert +counted == {"/v1/predict": 1, "/v1/models/{name}/predict": 2, "unmatched": 1}


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
        for method, operation in operations.items():
            closed = promised(method, path) is not None
            assert not closed or f"scope {promised(method, path)}." in operation["description"], path
            assert operation.get("security") == ([{"bearer": []}, {"header": []}] if closed else None), path
            assert ({"401", "403"} <= operation["responses"].keys()) == closed, path
    assert guarded.get("/openapi.json").json()["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_the_description_names_models_to_whoever_may_predict_only(guarded: httpx.Client, client: httpx.Client) -> None:
    for owner, headers in [*HEADERS.items(), (None, {"X-API-Key": "nobody-knows-this-key"})]:
        text = guarded.get("/openapi.json", headers=headers).text
        assert ('"row":{"summary":' in text) == ('"examples":' in text) == (owner is Scope.INFER), owner
    assert '"row":{"summary":' in client.get("/openapi.json").text
