"""MLServer's own client codecs, unmodified, and requests as they write them, through a real socket.

They cannot be installed beside Dubio's service, for their FastAPI is older: DUBIO_TEST_MLSERVER names an interpreter
that can import `mlserver` (`pip install mlserver==1.7.1 "pandas<3"` in an environment of its own).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.kinds import FILES, IN_BASE64, NUMBERS, TEXTS, check_outputs, predictions

PYTHON = os.environ.get("DUBIO_TEST_MLSERVER", "")
needs_mlserver = pytest.mark.skipif(not PYTHON, reason="DUBIO_TEST_MLSERVER names no interpreter with MLServer")
CODECS = Path(__file__).with_name("mlserver_codecs.py")
# A data frame holds one type a column, and the codec cannot write texts that are missing.
TABLE: list[dict[str, Any]] = [
    {"age": 40, "income": 2500.5, "city": "Bern", "member": True},
    {"age": 18, "income": None, "city": "Köln", "member": False},
    {"age": 5000, "income": 0.1, "city": "Basel", "member": True},
]
PLAIN = {"content_type": "str"}
# As MLServer 1.7.1 writes them.
WRITTEN: dict[str, dict[str, Any]] = {
    "row by NumpyRequestCodec": {
        "parameters": {"content_type": "np"},
        "inputs": [
            {
                "name": "input-1",
                "shape": [3, 5],
                "datatype": "FP64",
                "parameters": {"content_type": "np"},
                "data": [number for row in NUMBERS for number in row],
            }
        ],
    },
    "text by StringRequestCodec": {
        "parameters": PLAIN,
        "inputs": [{"name": "input-1", "shape": [3, 1], "datatype": "BYTES", "parameters": PLAIN, "data": TEXTS}],
    },
    "text by StringCodec": {
        "id": "r-1",
        "parameters": {"content_type": "str", "headers": {"of": "theirs"}},
        "inputs": [{"name": "input", "shape": [3, 1], "datatype": "BYTES", "parameters": PLAIN, "data": TEXTS}],
    },
    "table by PandasCodec": {
        "parameters": {"content_type": "pd"},
        "inputs": [
            {"name": "age", "shape": [3, 1], "datatype": "INT64", "data": [40, 18, 5000]},
            {"name": "income", "shape": [3, 1], "datatype": "FP64", "data": [2500.5, None, 0.1]},
            {
                "name": "city",
                "shape": [3, 1],
                "datatype": "BYTES",
                "parameters": PLAIN,
                "data": ["Bern", "Köln", "Basel"],
            },
            {"name": "member", "shape": [3, 1], "datatype": "BOOL", "data": [True, False, True]},
        ],
    },
    "pixels by Base64Codec": {
        "inputs": [
            {
                "name": "input",
                "shape": [3, 1],
                "datatype": "BYTES",
                "parameters": {"content_type": "base64"},
                "data": IN_BASE64,
            }
        ]
    },
}
INSTANCES: dict[str, list[Any]] = {"table": TABLE}  # of the others those of `kinds`


def run(*arguments: str, given: Any) -> Any:
    """What MLServer's codecs make of it."""
    done = subprocess.run([PYTHON, CODECS, *arguments], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer(client: httpx.Client, name: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, once it is the one of `/v1/predict`."""
    model = name.partition(" ")[0]
    response = client.post(f"/v2/models/{model}/infer", json=request)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    outputs = {output["name"]: output["data"] for output in document["outputs"]}
    check_outputs(outputs, predictions(client, model, INSTANCES.get(model)))
    return document


@pytest.mark.parametrize("name", WRITTEN)
def test_requests_as_the_codecs_write_them(kinds: httpx.Client, name: str) -> None:
    answer(kinds, name, WRITTEN[name])


@needs_mlserver
def test_requests_that_the_codecs_write(kinds: httpx.Client) -> None:
    files = [file.hex() for file in FILES]
    requests = run("encode", given={"row": NUMBERS, "table": TABLE, "text": TEXTS, "pixels": files})
    assert len(requests) == 7
    for name, request in requests.items():
        answer(kinds, name, request)
    assert {name: requests[name] for name in WRITTEN} == WRITTEN


@needs_mlserver
@pytest.mark.parametrize("name", WRITTEN)
def test_answers_are_read_by_the_codecs(kinds: httpx.Client, name: str) -> None:
    document = answer(kinds, name, WRITTEN[name])
    outputs = run("decode", "each", given=document)
    check_outputs(outputs, predictions(kinds, name.partition(" ")[0], INSTANCES.get(name.partition(" ")[0])))
    single = {**document, "outputs": [output for output in document["outputs"] if len(output["shape"]) == 1]}
    frame = run("decode", "PandasCodec", given=single)
    assert list(frame) == [output["name"] for output in single["outputs"]]
    assert frame["label"] == outputs["label"]
