from __future__ import annotations

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
