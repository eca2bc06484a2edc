"""Whatever is refused is told in JSON's words: a caller need not know that Python is behind the service."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.serving.kinds import INSTANCES, TEXTS

WRONG: list[Any] = [
    None,
    True,
    7,
    -1.5,
    "x",
    "",
    [],
    ["x"],
    [None],
    [[[1]]],
    {},
    {"text": "x"},
    {"b64": 3},
    {"b64": "x"},
]
# As words of their own; what is quoted was sent.
PYTHON = re.compile(
    r"\b(None|NoneType|True|False|dict|dictionary|mapping|tuple|str|bool|int|float|object at|instance of)\b"
    r"|\btype (str|bool|int|float|list|dict)|class '|\{'|Python"
)


def refusals(client: httpx.Client, path: str, documents: list[Any]) -> list[str]:
    """What is said about those that are refused."""
    said = []
    for document in documents:
        response = client.post(path, json=document)
        assert response.status_code in (200, 400, 413, 422), response.text
        if response.status_code != 200:
            answer = response.json()
            said.append(answer.get("detail") or answer["error"])
    return said


def check(said: list[str], at_least: int) -> None:
    assert len(said) >= at_least
    assert [text for text in said if PYTHON.search(text)] == []


@pytest.mark.parametrize("kind", sorted(INSTANCES))
def test_an_instance_of_another_kind(kinds: httpx.Client, kind: str) -> None:
    good = INSTANCES[kind][0]
    documents = [{"instances": [good, wrong]} for wrong in WRONG]
    if isinstance(good, dict):
        documents += [{"instances": [good | {key: wrong}]} for key in good for wrong in WRONG]
    elif isinstance(good, list):
        documents += [{"instances": [[wrong, *good[1:]]]} for wrong in WRONG]
    check(refusals(kinds, f"/v1/models/{kind}/predict", documents), at_least=10)


@pytest.mark.parametrize("kind", sorted(INSTANCES))
def test_another_part_of_a_request(kinds: httpx.Client, kind: str) -> None:
    good = {"instances": INSTANCES[kind]}
    documents = [*WRONG, *({"instances": wrong} for wrong in WRONG)]
    documents += [good | {key: wrong} for key in ("id", "parameters") for wrong in WRONG]
    documents += [good | {"parameters": {key: wrong}} for key in ("samples", "resize") for wrong in WRONG]
    check(refusals(kinds, f"/v1/models/{kind}/predict", documents), at_least=30)


@pytest.mark.parametrize("kind", sorted(INSTANCES))
def test_tensorflow_servings_forms(kinds: httpx.Client, kind: str) -> None:
    documents = [{"inputs": wrong} for wrong in WRONG] + [{"inputs": {"input": wrong}} for wrong in WRONG]
    documents += [{"instances": [wrong]} for wrong in WRONG]
    check(refusals(kinds, f"/v1/models/{kind}:predict", documents), at_least=20)


@pytest.mark.parametrize("kind", sorted(INSTANCES))
def test_tensors(kinds: httpx.Client, kind: str) -> None:
    metadata = kinds.get(f"/v2/models/{kind}").json()["inputs"]
    tensors = [
        {"name": each["name"], "datatype": each["datatype"], "shape": [1, *each["shape"][1:]], "data": TEXTS[:1]}
        for each in metadata
    ]
    documents: list[Any] = [*WRONG, *({"inputs": wrong} for wrong in WRONG)]
    documents += [
        {"inputs": [tensors[0] | {key: wrong}, *tensors[1:]], "parameters": {}}
        for key in ("name", "datatype", "shape", "data", "parameters")
        for wrong in WRONG
    ]
    documents += [{"inputs": [tensors[0] | {"data": [wrong]}, *tensors[1:]]} for wrong in WRONG]
    documents += [{"inputs": tensors, key: wrong} for key in ("id", "parameters", "outputs") for wrong in WRONG]
    check(refusals(kinds, f"/v2/models/{kind}/infer", documents), at_least=60)
