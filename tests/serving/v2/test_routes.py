from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dubio.serving.v2 import schema


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
        schema.ServerMetadata.model_validate_json(answer.content)


@pytest.mark.parametrize(
    ("keys", "control", "offered"),
    [(None, "none", False), ("infer", "none", False), ("infer,admin", "none", True), ("infer,admin", "poll", False)],
)
def test_loading_by_request_is_named_exactly_where_it_works(
    serve: Callable, settings: Callable, checkpoint: Path, tmp_path: Path, keys: str | None, control: str, offered: bool
) -> None:
    given = {} if keys is None else {"api_keys": f"{keys}:0123456789-0123456789"}
    headers = {"X-API-Key": "0123456789-0123456789"}
    chosen = settings(models=(str(checkpoint),), model_repository=tmp_path, model_control=control, **given)
    with serve(chosen) as base, httpx.Client(base_url=base, headers=headers) as client:
        extensions = client.get("/v2").json()["extensions"]
        works = client.post("/v2/repository/models/bars/load").status_code == 200
    assert works == offered
    assert [name for name in extensions if "repository" in name] == (
        ["model_repository", "model_repository(unload_dependents)"] if offered else []
    )


def test_what_is_asked_of_a_model_is_counted_for_its_version(
    serve: Callable, settings: Callable, checkpoint: Path
) -> None:
    with serve(settings(models=(str(checkpoint),))) as base:
        for version in ("", "/versions/1"):
            for leaf in ("", "/ready", "/config", "/stats"):
                httpx.get(f"{base}/v2/models/bars{version}{leaf}")
        lines = httpx.get(f"{base}/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("dubio_requests_total") and "/v2/models" in line]
    counted = [line for line in counted if not line.endswith(" 0.0")]
    assert len(counted) == 8
    assert all('model="bars"' in line and ',version="1"' in line for line in counted)


@pytest.mark.parametrize("version", ["", "/versions/1"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", schema.ModelMetadata),
        ("/ready", schema.ModelReady),
        ("/config", schema.ModelConfig),
        ("/stats", schema.StatisticsReport),
    ],
)
def test_each_document_has_its_form_and_unknown_models_their_error(
    client: httpx.Client, version: str, path: str, kind: type[schema.Wire]
) -> None:
    answer = client.get(f"/v2/models/row{version}{path}")
    assert answer.status_code == 200
    kind.model_validate_json(answer.content, strict=True)
    for name, wrong in [("rows", version), ("row", "/versions/2"), ("..%2Frow", version), ("row%00", version)]:
        refused = client.get(f"/v2/models/{name}{wrong}{path}")
        assert refused.status_code == 404
        assert list(refused.json()) == ["error"]


def test_statistics_name_every_model(client: httpx.Client) -> None:
    report = schema.StatisticsReport.model_validate_json(client.get("/v2/models/stats").content, strict=True)
    assert [(model.name, model.version) for model in report.model_stats] == [("bars", "1"), ("row", "1")]


def test_without_models_there_is_nothing_to_ask(serve: Callable, settings: Callable) -> None:
    with serve(settings()) as base:
        assert httpx.get(f"{base}/v2").status_code == 200
        assert httpx.get(f"{base}/v2/models/stats").json() == {"model_stats": []}
        for answer in (httpx.get(f"{base}/v2/models/bars/ready"), httpx.post(f"{base}/v2/models/bars/infer")):
            assert answer.status_code == 503
            assert answer.json()["error"].startswith("No model is loaded")
