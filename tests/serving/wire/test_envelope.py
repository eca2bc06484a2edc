from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError

from dubio.serving.errors import InvalidRequest, MalformedJSON
from dubio.serving.v1.schema import PredictRequest
from dubio.serving.v2.schema import IndexRequest, InferRequest, LoadRequest, UnloadRequest
from dubio.serving.wire.envelope import limit_samples, name_value, read
from dubio.serving.wire.schema import Extensible, Incoming

TENSOR = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


class Leaf(Incoming):
    size: int | None = Field(default=None, description="How large. And more.")


class Tree(Incoming):
    leaves: list[Leaf] = Field(description="All of them.", fail_fast=True)
    numbers: list[Any] | None = Field(default=None, description="Not looked at.")


def refusal(document: object, kind: type[Incoming] = Tree) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(json.dumps(document).encode(), kind)
    return str(caught.value)


def test_what_is_left_open_is_not_touched() -> None:
    tree = read(b'{"leaves": [{"size": 3}, {}], "numbers": [[1, 2.5], "x", null]}', Tree)
    assert tree.numbers == [[1, 2.5], "x", None]
    assert [leaf.size for leaf in tree.leaves] == [3, None]
    assert read(memoryview(b'{"leaves": []}'), Tree).numbers is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "Expected the request to be an object with leaves, numbers, but got a list of 0."),
        (None, "Expected the request to be an object with leaves, numbers, but got null."),
        ({}, "Expected `leaves`, but it is missing; send it. Its meaning: All of them."),
        ({"leaves": 3}, "Expected `leaves` to be a valid list, but got the number 3; put what it holds "
         "into a list. Its meaning: All of them."),
        ({"leaves": [{}, 7]}, "Expected `leaves[1]` to be an object, but got the number 7; mend it. Its meaning: "
         "All of them."),
        ({"leaves": [{}, {"size": "3"}]}, "Expected `leaves[1].size` to be a valid integer, but got the string '3'; "
         "mend it or leave it out. Its meaning: How large."),
        ({"leave": []}, "Expected no unknown key in the request, but got `leave`; did you mean `leaves`?"),
        ({"leaves": [{"zzz": 1}]}, "Expected no unknown key in `leaves[0]`, but got `zzz`; known: size."),
    ],
)  # fmt: skip
def test_the_first_mistake_is_told_with_field_rule_value_and_cure(document: object, message: str) -> None:
    assert refusal(document) == message


def test_an_unknown_key_is_told_first_and_cut() -> None:
    assert "got `xxx" in refusal({"leaves": 3, "x" * 1000: 1})
    assert len(refusal({"x" * 1000: 1})) < 200
    assert "got `{key}`;" in refusal({"{key}": 1})


def test_a_flood_of_mistakes_is_not_listed() -> None:
    assert "but 20001 things in it are wrong" in refusal({f"k{i}": 1 for i in range(20_000)})
    assert "Expected `leaves[0]` to be an object" in refusal({"leaves": [3] * 20_000})


@pytest.mark.parametrize("kind", [PredictRequest, InferRequest, IndexRequest, LoadRequest, UnloadRequest])
def test_only_unknown_keys_can_be_many(kind: type[Incoming]) -> None:
    """A list of a million wrong entries ends at the first."""
    document = {name: [[]] * 1000 for name in kind.model_fields}
    document["inputs"] = [{"name": "input", "shape": [[]] * 1000, "datatype": "FP32", "data": [[]] * 1000}] * 1000
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({name: value for name, value in document.items() if name in kind.model_fields})
    assert caught.value.error_count() < 10


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json(body: bytes) -> None:
    for kind in (IndexRequest, LoadRequest, UnloadRequest):
        with pytest.raises(MalformedJSON, match="Expected the body to be JSON, but"):
            read(body, kind)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("shared_memory_offset", "shared memory is not supported; send the tensor in the body."),
        ("sample", "did you mean `samples`?"),
        ("num_samples", "did you mean `samples`?"),
        ("Timeout", "did you mean `timeout`?"),
        ("timeout_ms", "did you mean `timeout`?"),
    ],
)
def test_what_looks_like_a_parameter_of_ours_is_refused(name: str, cure: str) -> None:
    document = {"inputs": [TENSOR], "parameters": {name: 1}}
    assert f"Expected no unknown key in `parameters`, but got `{name}`; {cure}" in refusal(document, InferRequest)


@pytest.mark.parametrize("name", ["triton_enable", "sequence_id", "headers", "model_name", "temperature", "x" * 10**6])
def test_what_others_add_to_their_format_is_left_alone(name: str) -> None:
    tensor = {**TENSOR, name: 1, "parameters": {name: {"deep": [1]}}}
    output = {"name": "label", name: None, "parameters": {name: "x"}}
    document = {name: 1, "inputs": [tensor], "outputs": [output], "parameters": {name: True, "samples": 3}}
    request = read(json.dumps(document).encode(), InferRequest)
    assert request.parameters is not None
    assert request.parameters.samples == 3
    assert request.inputs[0].model_dump(exclude_unset=True) == {**TENSOR, "parameters": {}}


def test_a_slip_is_told_where_it_is() -> None:
    for place, document in {
        "the request": {"inputs": [TENSOR], "output": []},
        "`inputs[1]`": {"inputs": [TENSOR, {**TENSOR, "dtype": "FP32"}]},
        "`outputs[0].parameters`": {"inputs": [TENSOR], "outputs": [{"name": "a", "parameters": {"binary_dat": True}}]},
    }.items():
        assert f"Expected no unknown key in {place}, but got" in refusal(document, InferRequest)


def test_of_a_flood_of_foreign_keys_few_are_looked_at() -> None:
    looked_at: list[str] = []

    class Watched(Extensible):
        @classmethod
        def explain_slip(cls, key: str) -> str | None:
            looked_at.append(key)
            return super().explain_slip(key)

    read(json.dumps({f"key_{i}": i for i in range(100_000)}).encode(), Watched)
    assert 0 < len(looked_at) < 100


def test_requests_for_the_repository() -> None:
    assert not read(b"{}", IndexRequest).ready
    assert not read(b'{"ready":false}', IndexRequest).ready
    assert read(b'{"ready":true}', IndexRequest).ready
    for value in (b"true", b"false"):
        read(b'{"parameters":{"unload_dependents":' + value + b"}}", UnloadRequest)
    for body in (b"{}", b'{"parameters":{}}', b'{"parameters":null}'):
        read(body, LoadRequest)
        read(body, UnloadRequest)


@pytest.mark.parametrize("name", ["config", "file:1/model.ckpt", "file:../../x", "other"])
def test_models_do_not_come_with_the_request(name: str) -> None:
    assert "own disk" in refusal({"parameters": {name: "x"}}, LoadRequest)


@pytest.mark.parametrize(
    ("document", "kind", "complaint"),
    [
        ({"ready": 1}, IndexRequest, "`ready` to be a valid boolean, but got the number 1"),
        ({"reddy": True}, IndexRequest, "did you mean `ready`?"),
        ({"parameters": 1}, LoadRequest, "`parameters` to be an object, but got the number 1"),
        ({"parameters": 1}, UnloadRequest, "`parameters` to be an object, but got the number 1"),
        ({"parameters": {"x": 1}}, UnloadRequest, "known: unload_dependents."),
        (
            {"parameters": {"unload_dependents": 1}},
            UnloadRequest,
            "`parameters.unload_dependents` to be a valid boolean",
        ),
    ],
)
def test_what_the_repository_does_not_understand(document: object, kind: type[Incoming], complaint: str) -> None:
    assert complaint in refusal(document, kind)


def test_samples_may_be_the_whole_committee_and_no_more() -> None:
    assert [limit_samples(each, committee=16) for each in (None, "auto", 2, 16)] == [None, "auto", 2, 16]
    with pytest.raises(InvalidRequest, match=r"in \[2, 16\] or \"auto\", but got 17; leave it out"):
        limit_samples(17, committee=16)


def test_values_are_named_in_a_few_words() -> None:
    assert name_value("a" * 500) == "the string '" + "a" * 40 + "' (cut)"
    assert [name_value(each) for each in (None, True, 1.5, [1, 2], {"a": 1})] == [
        "null", "a boolean", "the number 1.5", "a list of 2", "an object"
    ]  # fmt: skip
