"""Texts, image files and tables' columns as clients have them, through a real socket: answers as over `/v1/predict`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving.kinds import FILES, IN_BASE64, NUMBERS, ROWS, TEXTS, check_outputs, predictions

triton = import_module("tritonclient.http")
Refused = import_module("tritonclient.utils").InferenceServerException

Array = np.ndarray


@pytest.fixture
def server(kinds: httpx.Client) -> Iterator[Any]:
    """Triton's client of the same server."""
    with triton.InferenceServerClient(f"{kinds.base_url.host}:{kinds.base_url.port}") as server:
        yield server


def tensors(columns: dict[str, Array], *, binary: bool) -> list[Any]:
    """As Triton's client sends them."""
    built = []
    for name, values in columns.items():
        datatype = import_module("tritonclient.utils").np_to_triton_dtype(values.dtype)
        tensor = triton.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        built.append(tensor)
    return built


def infer(client: httpx.Client, model: str, *inputs: dict[str, Any], status: int = 200, **more: Any) -> Any:
    """The outputs by name, or the error's text."""
    answer = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})
    assert answer.status_code == status, answer.text
    if status != 200:
        return answer.json()["error"]
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def answered(server: Any, model: str, columns: dict[str, Array], *, binary: bool) -> dict[str, Any]:
    result = server.infer(model, tensors(columns, binary=binary))
    return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_texts(kinds: httpx.Client, server: Any, binary: bool, shape: tuple[int, ...]) -> None:
    texts = np.array([text.encode() for text in TEXTS], dtype=object).reshape(shape)
    check_outputs(answered(server, "text", {"input": texts}, binary=binary), predictions(kinds, "text"))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_image_files(kinds: httpx.Client, server: Any, shape: tuple[int, ...]) -> None:
    expected = predictions(kinds, "pixels")
    files = np.array(FILES, dtype=object).reshape(shape)
    check_outputs(answered(server, "pixels", {"input": files}, binary=True), expected)
    for data in (IN_BASE64, [f"data:image/png;base64,{text}" for text in IN_BASE64]):
        check_outputs(
            infer(kinds, "pixels", {"name": "input", "shape": shape, "datatype": "BYTES", "data": data}), expected
        )


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_columns_in_binary(kinds: httpx.Client, server: Any, kind: type) -> None:
    rows = [ROWS[0], ROWS[1] | {"city": "Bern"}, ROWS[2] | {"income": 2.5}]  # bytes cannot be missing
    columns = {
        "age": np.array([row["age"] for row in rows], np.int64)[:, None],
        "income": np.array([np.nan if row["income"] is None else row["income"] for row in rows], kind)[:, None],
        "city": np.array([row["city"].encode() for row in rows], dtype=object)[:, None],
        "member": np.array([True, False, True])[:, None],
    }
    check_outputs(answered(server, "table", columns, binary=True), predictions(kinds, "table", rows))


def test_columns_in_json(kinds: httpx.Client) -> None:
    rows = [row | {"member": str(row["member"]).lower()} for row in ROWS]
    datatypes = {"member": "BYTES", "city": "BYTES", "income": "FP64", "age": "UINT16"}
    columns = [
        {"name": name, "shape": [3, 1], "datatype": datatype, "data": [row[name] for row in rows]}
        for name, datatype in datatypes.items()
    ]
    check_outputs(infer(kinds, "table", *columns), predictions(kinds, "table"))


def test_columns_partly_in_binary(kinds: httpx.Client, server: Any) -> None:
    [row] = rows = ROWS[:1]
    binary = tensors({"city": np.array([b"Bern"], dtype=object), "age": np.array([row["age"]])}, binary=True)
    json = tensors({"income": np.array([row["income"]]), "member": np.array([True])}, binary=False)
    result = server.infer("table", [binary[0], json[0], binary[1], json[1]])
    outputs = {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}
    check_outputs(outputs, predictions(kinds, "table", rows))


def test_the_numbers_that_rows_become_are_taken_still(kinds: httpx.Client) -> None:
    tokens = {"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [6, 4, 2, 3, 9, 0]}
    check_outputs(infer(kinds, "text", tokens), predictions(kinds, "text", TEXTS[:1]))
    numbers = {"name": "input", "shape": [1, 10], "datatype": "FP64", "data": [40, 2500.5, 0, 1, 0, 0, 0, 0, 1, 0]}
    check_outputs(infer(kinds, "table", numbers), predictions(kinds, "table", ROWS[:1]))


def test_what_the_metadata_lists_is_what_a_client_needs(kinds: httpx.Client, server: Any) -> None:
    """A client that knows the metadata alone builds every request by it."""
    given: dict[str, dict[str, list[Any]]] = {
        "row": {"input": NUMBERS[:1]},
        "table": {name: [[value]] for name, value in (ROWS[0] | {"member": "true"}).items()},
        "text": {"input": [[TEXTS[0]]]},
        "pixels": {"input": np.zeros((1, 3, 8, 8)).tolist()},
    }
    for model, values in given.items():
        listed = server.get_model_metadata(model)["inputs"]
        configured = server.get_model_config(model)["input"]
        assert [each["name"] for each in listed] == [each["name"] for each in configured] == list(values)
        for tensor, config in zip(listed, configured, strict=True):
            assert config["dims"] == tensor["shape"][1:]
            assert config["data_type"] == "TYPE_" + tensor["datatype"].replace("BYTES", "STRING")
        columns = {}
        for tensor in listed:
            kind = import_module("tritonclient.utils").triton_to_np_dtype(tensor["datatype"])
            columns[tensor["name"]] = np.array(values[tensor["name"]], kind).reshape(1, *tensor["shape"][1:])
        for binary in (True, False):
            outputs = answered(server, model, columns, binary=binary)
            instance = values["input"][0] if model in ("row", "pixels") else TEXTS[0] if model == "text" else ROWS[0]
            check_outputs(outputs, predictions(kinds, model, [instance]))


@pytest.mark.parametrize(
    ("model", "tensor", "complaint"),
    [
        ("text", {"data": [""]}, "Expected row 0 of input 'input' to hold words"),
        ("text", {"data": [None]}, "Expected row 0 of input 'input' to be a text"),
        ("text", {"data": ["x" * 70_000]}, "Expected row 0 of input 'input' to have at most 65536 characters"),
        ("text", {"data": ["a"], "datatype": "BOOL"}, "data-type is 'BOOL', but model 'text' expects 'BYTES'"),
        ("row", {"data": ["a"]}, "data-type is 'BYTES', but model 'row' expects 'FP32'"),
        ("pixels", {"data": ["no base64"]}, "Expected row 0 of input 'input' to hold base64"),
        ("pixels", {"data": ["AAAA"]}, "Expected row 0 of input 'input' to be a PNG, JPEG or WebP file"),
        ("pixels", {"data": [None]}, "Expected row 0 of input 'input' to be an image file, but it is null"),
        ("table", {"data": ["a"]}, "data-type is 'BYTES', but model 'table' expects 'FP32'"),
    ],
)
def test_refusals_name_the_row(kinds: httpx.Client, model: str, tensor: dict, complaint: str) -> None:
    entry = {"name": "input", "shape": [1], "datatype": "BYTES", **tensor}
    assert complaint in infer(kinds, model, entry, status=400)


def test_files_of_another_size(kinds: httpx.Client, server: Any) -> None:
    with pytest.raises(Refused, match="input 'input'"):
        server.infer("pixels", tensors({"input": np.array([FILES[0][:-20]], dtype=object)}, binary=True))
    for resize in (True, False):
        entry = {"name": "input", "shape": [1], "datatype": "BYTES", "data": IN_BASE64[:1]}
        outputs = infer(kinds, "pixels", entry, parameters={"resize": resize})
        check_outputs(outputs, predictions(kinds, "pixels", [{"b64": IN_BASE64[0]}]))
