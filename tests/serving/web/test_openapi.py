from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from dubio.serving.v1.schema import PredictResponse
from dubio.serving.v2.schema import InferResponse


def test_every_example_runs(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, names in [("/v1/models/{name}/predict", ["bars", "row"]), ("/v1/predict", ["bars"])]:
        examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert list(examples) == names
        for name, example in examples.items():
            response = client.post(path.format(name=name), json=example["value"])
            assert response.status_code == 200
            PredictResponse.model_validate_json(response.content)


def test_every_example_of_the_protocol_runs(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path in ["/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"]:
        operation = document["paths"][path]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        assert list(examples) == ["bars", "row"]
        assert "422" not in operation["responses"]  # which the framework would add, and nothing here answers
        for name, example in examples.items():
            response = client.post(path.format(name=name, version="1"), json=example["value"])
            assert response.status_code == 200
            answer = InferResponse.model_validate_json(response.content)
            assert [output.name for output in answer.outputs] == ["label", "mc_mean", "mutual_information"]


def test_natural_inputs_have_examples_that_run(
    serve: Callable, settings: Callable, table_checkpoint: Path, text_checkpoint: Path, pixels_checkpoint: Path
) -> None:
    given = settings(models=(str(table_checkpoint), str(text_checkpoint), str(pixels_checkpoint)))
    with serve(given) as base, httpx.Client(base_url=base) as client:
        for path, operations in client.get("/openapi.json").json()["paths"].items():
            if (
                "requestBody" not in operations.get("post", {})
                or "{name}" not in path
                or path.endswith(("load", "promote"))
            ):
                continue
            examples = operations["post"]["requestBody"]["content"]["application/json"]["examples"]
            assert {name.partition(",")[0] for name in examples} == {"table", "text", "pixels"}
            for name, example in examples.items():
                url = path.format(name=name.partition(",")[0], version="1")
                assert client.post(url, json=example["value"]).status_code == 200, (url, name)


def test_what_is_answered_without_a_model_or_a_key_is_described(
    serve: Callable, settings: Callable, tmp_path: Path
) -> None:
    """Each call is made without a key, with one that is not enough, and with all, where nothing is loaded."""
    keys = {"metrics": "m" * 20, "infer": "i" * 20, "infer,review,admin,metrics": "a" * 20}
    given = settings(
        models=(), model_repository=tmp_path, model_control="explicit", api_keys=" ".join(map(":".join, keys.items()))
    )
    met: dict[int, set[str]] = {}
    with serve(given) as base, httpx.Client(base_url=base) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, operations in paths.items():
            for method, operation in operations.items():
                for key in ("", *keys.values()):
                    answer = client.request(
                        method,
                        path.format(name="bars", version="1", id="0" * 32),
                        headers={"X-API-Key": key} if key else {},
                        content=b"{}" if method in ("post", "patch") else None,
                    )
                    described = operation["responses"].get(str(answer.status_code))
                    assert described, (method, path, answer.status_code)
                    kind = answer.headers.get("content-type", "").partition(";")[0]
                    assert not answer.content or kind in {each.partition(";")[0] for each in described["content"]}, path
                    met.setdefault(answer.status_code, set()).add(path)
    assert {200, 401, 403, 503} <= met.keys()
    assert len(met[401]) == len(paths) - 2  # the probes are open
    assert met[503] >= {path for path in paths if "{name}" in path and "repository" not in path}


def test_every_reference_resolves(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    references: list[str] = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            references.extend(value for key, value in node.items() if key == "$ref")
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(document)
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_the_docs_page_is_there(client: httpx.Client) -> None:
    assert client.get("/docs").status_code == 200
