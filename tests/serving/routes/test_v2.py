from __future__ import annotations

from collections.abc import Callable

import httpx


def test_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_without_models_it_lives_but_is_not_ready(serve: Callable, settings: Callable) -> None:
    with serve(settings()) as base:
        assert httpx.get(f"{base}/v2/health/live").status_code == 200
        ready = httpx.get(f"{base}/v2/health/ready")
        assert ready.status_code == 503
        assert ready.json()["error"].startswith("No model is loaded")


def test_errors_have_the_protocols_form(client: httpx.Client) -> None:
    for response, status in [(client.get("/v2/nothing"), 404), (client.post("/v2/health/live"), 405)]:
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert list(response.json()) == ["error"]
