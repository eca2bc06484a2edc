from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from serving.v2 import openinference as wire


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


def test_the_server_answers_with_and_without_a_slash(client: httpx.Client) -> None:
    for path in ("/v2", "/v2/"):
        answer = client.get(path)
        assert answer.status_code == 200
        wire.ServerMetadata.model_validate_json(answer.content)


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", wire.ModelMetadata),
        ("/ready", wire.ModelReady),
        ("/config", wire.ModelConfig),
        ("/stats", wire.StatisticsReport),
    ],
)
def test_each_document_has_its_form_and_unknown_models_their_error(
    client: httpx.Client, version: str, path: str, kind: type[wire.Wire]
) -> None:
    answer = client.get(f"/v2/models/row{version}{path}")
    assert answer.status_code == 200
    kind.model_validate_json(answer.content, strict=True)
    for name, wrong in [("rows", version), ("row", "/versions/2"), ("..%2Frow", version), ("row%00", version)]:
        refused = client.get(f"/v2/models/{name}{wrong}{path}")
        assert refused.status_code == 404
        assert list(refused.json()) == ["error"]


def test_statistics_name_every_model(client: httpx.Client) -> None:
    report = wire.StatisticsReport.model_validate_json(client.get("/v2/models/stats").content, strict=True)
    assert [(model.name, model.version) for model in report.model_stats] == [("bars", "1"), ("row", "1")]


def test_without_models_there_is_nothing_to_ask(serve: Callable, settings: Callable) -> None:
    with serve(settings()) as base:
        assert httpx.get(f"{base}/v2").status_code == 200
        assert httpx.get(f"{base}/v2/models/stats").json() == {"model_stats": []}
        for answer in (httpx.get(f"{base}/v2/models/bars/ready"), httpx.post(f"{base}/v2/models/bars/infer")):
            assert answer.status_code == 503
            assert answer.json()["error"].startswith("No model is loaded")
