"""The infer call with bodies that no well-meaning client would send, through a real socket."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest

from dubio.models import Predictor
from dubio.serving.v2.outputs import OUTPUTS
from dubio.serving.v2.schema import InferResponse

INFER = "/v2/models/bars/infer"
LENGTH = "Inference-Header-Content-Length"
BAR = np.zeros((1, 1, 8, 8), np.float32)
BAR[..., 0:2] = 12
TENSOR = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": BAR.tolist()}
GOOD = {"inputs": [TENSOR]}
RAW = BAR.tobytes()
BINARY = {"inputs": [{**TENSOR, "data": None, "parameters": {"binary_data_size": len(RAW)}}]}


@pytest.fixture(autouse=True)
def still_well(client: httpx.Client) -> Iterator[None]:
    """Whatever a test sends, the next good request is answered."""
    yield
    answer = client.post(INFER, json=GOOD)
    assert answer.status_code == 200
    parsed = InferResponse.model_validate_json(answer.content)
    assert parsed.outputs[0].data == ["class-0"]


def error(response: httpx.Response, status: int) -> str:
    """The error's text, once its form is checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.json()["error"]


def framed(document: object, *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """A body and the header that says how much of it is JSON."""
    head = json.dumps(document).encode()
    return b"".join([head, *tensors]), {LENGTH: str(len(head))}


def with_tensor(**changes: object) -> bytes:
    return json.dumps({"inputs": [{**TENSOR, **changes}]}).encode()


def deep(document: object) -> bytes:
    """The document with a list a thousand deep for "DEEP": as deep as the parser lets through."""
    return json.dumps(document).replace('"DEEP"', "[" * 1000 + "]" * 1000).encode()


HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "no json": (b"{", 400, "Expected the body to be JSON"),
    "empty": (b"", 400, "Expected the body to be JSON"),
    "a list": (b"[]", 400, "Expected the request to be an object with id, "),
    "deep": (b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "depth limit"),
    "not UTF-8": (b'{"id":"\xff"}', 400, "Expected the body to be JSON"),
    "NaN": (with_tensor(data="DEEP").replace(b'"DEEP"', b"[NaN]"), 400, "JSON does not have"),
    "unknown key": (b'{"input":[]}', 400, "did you mean `inputs`?"),
    "no inputs": (b'{"inputs":[]}', 400, "`inputs` to have at least 1 item, but got a list of 0"),
    "inputs missing": (b"{}", 400, "Expected `inputs`, but it is missing"),
    "inputs no list": (b'{"inputs":{"name":"input"}}', 400, "Expected `inputs` to be a valid list, but got an object"),
    "input no object": (b'{"inputs":[3]}', 400, "Expected `inputs[0]` to be an object"),
    "two inputs": (json.dumps({"inputs": [TENSOR, TENSOR]}).encode(), 400, "its only input is 'input'"),
    "input's name": (with_tensor(name="x" * 10_000), 400, "unexpected inference input 'xxx"),
    "no name": (with_tensor(name=None), 400, "`inputs[0].name` to be a valid string, but got null"),
    "no datatype": (with_tensor(datatype=None), 400, "`inputs[0].datatype` to be a valid string, but got null"),
    "datatype": (with_tensor(datatype="FP8"), 400, "data-type is 'FP8', but model 'bars' expects 'FP32'"),
    "BF16": (with_tensor(datatype="BF16"), 400, "data-type is 'BF16'"),
    "BOOL": (with_tensor(datatype="BOOL"), 400, "data-type is 'BOOL'"),
    "FP16 in JSON": (with_tensor(datatype="FP16"), 400, "datatype FP16 in binary"),
    "fractions as INT32": (with_tensor(datatype="INT32", data=[0.5] * 64), 400, "integers in [-2147483648, "),
    "300 as UINT8": (with_tensor(datatype="UINT8", data=[300] * 64), 400, "integers in [0, 255]"),
    "-1 as UINT64": (with_tensor(datatype="UINT64", data=[-1] * 64), 400, "integers in [0, 18446744073709551615]"),
    "no shape": (with_tensor(shape=None), 400, "`inputs[0].shape` to be a valid list, but got null"),
    "shape of text": (with_tensor(shape=["1", 1, 8, 8]), 400, "the string '1'"),
    "shape of truth": (with_tensor(shape=[True, 1, 8, 8]), 400, "`inputs[0].shape[0]` to be a valid integer"),
    "shape of fractions": (with_tensor(shape=[1.0, 1, 8, 8]), 400, "as whole numbers"),
    "negative": (with_tensor(shape=[-1, 1, 8, 8]), 400, "got [-1, 1, 8, 8]"),
    "two negatives": (with_tensor(shape=[-1, -1, 8, 8]), 400, "got [-1, -1, 8, 8]"),
    "no rows": (with_tensor(shape=[0, 1, 8, 8], data=[]), 400, "at least 1"),
    "overflowing": (with_tensor(shape=[2**32, 2**32, 8, 8]), 400, "got [4294967296, 4294967296, 8, 8]"),
    "product 64": (with_tensor(shape=[64]), 400, "Expected [-1, 1, 8, 8], got [64]"),
    "absurd": (with_tensor(shape=[2**62, 1, 8, 8]), 413, "batch-size must be <= 64"),
    "many axes": (with_tensor(shape=[1] * 50_000), 400, "at most 16 items, but got a list of 50000"),
    "deep shape": (deep({"inputs": [{**TENSOR, "shape": "DEEP"}]}), 400, "integer, but got a list of 1;"),
    "too few": (with_tensor(data=[1.0] * 63), 400, "but got shape [63]"),
    "too many": (with_tensor(data=[1.0] * 65), 400, "but got shape [65]"),
    "more rows than data": (with_tensor(shape=[2, 1, 8, 8]), 400, "to have shape [2, 1, 8, 8] or [128]"),
    "nested otherwise": (with_tensor(data=BAR.reshape(8, 8).tolist()), 400, "but got shape [8, 8]"),
    "ragged": (with_tensor(data=[[1, 2], [3]]), 400, "rectangular"),
    "mixed depths": (with_tensor(data=[1, [2]]), 400, "rectangular"),
    "empty data": (with_tensor(data=[]), 400, "but got shape [0]"),
    "strings": (with_tensor(data=["1"] * 64), 400, "the string '1'"),
    "null": (with_tensor(data=[None] * 64), 400, "null"),
    "booleans": (with_tensor(data=[True] * 64), 400, "a boolean"),
    "deep data": (deep({"inputs": [{**TENSOR, "data": "DEEP"}]}), 400, "nests more than 8 lists"),
    "no data": (with_tensor(data=None), 400, "it has neither"),
    "data a number": (with_tensor(data=3), 400, "`inputs[0].data` to be a valid list"),
    "float32 overflow": (with_tensor(data=[1e39] * 64), 400, "row 0 holds 1e+39 at position 0"),
    "shared memory": (with_tensor(parameters={"shared_memory_region": "a"}), 400, "shared memory is not supported"),
    "outputs no list": (json.dumps({**GOOD, "outputs": {}}).encode(), 400, "`outputs` to be a valid list"),
    "output no object": (json.dumps({**GOOD, "outputs": ["label"]}).encode(), 400, "`outputs[0]` to be an object"),
    "output nameless": (json.dumps({**GOOD, "outputs": [{}]}).encode(), 400, "`outputs[0].name`, but it is missing"),
    "output a list": (json.dumps({**GOOD, "outputs": [{"name": []}]}).encode(), 400, "valid string, but got a list"),
    "many outputs": (json.dumps({**GOOD, "outputs": [{"name": "label"}] * 9999}).encode(), 400, "already requested"),
    "id": (json.dumps({**GOOD, "id": 3}).encode(), 400, "`id` to be a valid string"),
    "parameters": (json.dumps({**GOOD, "parameters": []}).encode(), 400, "`parameters` to be an object"),
    "samples": (json.dumps({**GOOD, "parameters": {"samples": 10**9}}).encode(), 400, "in [2, 16]"),
    "samples as text": (json.dumps({**GOOD, "parameters": {"samples": "4"}}).encode(), 400, "integer or 'auto'"),
    "negative timeout": (json.dumps({**GOOD, "parameters": {"timeout": -1}}).encode(), 400, "Microseconds"),
    "endless timeout": (json.dumps({**GOOD, "parameters": {"timeout": 2**64 - 1}}).encode(), 400, "Microseconds"),
    "binary, perhaps": (json.dumps({**GOOD, "parameters": {"binary_data_output": 1}}).encode(), 400, "valid boolean"),
    "binary without header": (json.dumps(BINARY).encode(), 400, LENGTH),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_json(client: httpx.Client, case: str) -> None:
    body, status, complaint = HOSTILE[case]
    assert complaint in error(client.post(INFER, content=body), status)


@pytest.mark.parametrize(
    ("document", "raw", "complaint"),
    [
        (BINARY, RAW[:-1], "Expected 256 bytes of input 'input' behind the JSON, but got 255"),
        (BINARY, b"", "but got 0"),
        (BINARY, RAW + b"x", "unexpected additional input data for model 'bars': 1 bytes"),
        (GOOD, b"x", "unexpected additional input data"),
        ({"inputs": [{**BINARY["inputs"][0], "datatype": "FP64"}]}, RAW, "byte size mismatch"),
        ({"inputs": [{**BINARY["inputs"][0], "shape": [2, 1, 8, 8]}]}, RAW, "Expected 512, got 256"),
        ({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 256}}]}, RAW, "but it has both"),
        *[
            ({"inputs": [{**BINARY["inputs"][0], "parameters": {"binary_data_size": size}}]}, RAW, complaint)
            for size, complaint in [
                (-256, "greater than or equal to 1"),
                (0, "greater than or equal to 1"),
                (2**63, "size mismatch"),
                ("256", "a valid integer"),
                (True, "a valid integer"),
                (256.0, "a valid integer"),
            ]
        ],
        (BINARY, np.full(64, np.nan, np.float32).tobytes(), "row 0 holds nan at position 0"),
        (BINARY, np.full(64, np.inf, np.float32).tobytes(), "row 0 holds inf at position 0"),
    ],
)
def test_hostile_binary(client: httpx.Client, document: object, raw: bytes, complaint: str) -> None:
    body, headers = framed(document, raw)
    assert complaint in error(client.post(INFER, content=body, headers=headers), 400)


@pytest.mark.parametrize("length", ["-1", "+5", "1e2", "0x10", "five", "", "999999999", "9" * 5000, "5.0", "1_0"])
def test_hostile_header_lengths(client: httpx.Client, length: str) -> None:
    body, _ = framed(BINARY, RAW)
    assert LENGTH in error(client.post(INFER, content=body, headers={LENGTH: length}), 400)


def test_a_header_length_in_the_middle_of_the_json(client: httpx.Client) -> None:
    body, headers = framed(BINARY, RAW)
    for shift in (-5, 5):
        response = client.post(INFER, content=body, headers={LENGTH: str(int(headers[LENGTH]) + shift)})
        assert "Expected the body to be JSON" in error(response, 400)


def test_a_raw_body_is_one_row_and_all_outputs_in_binary(client: httpx.Client, predictor: Predictor) -> None:
    response = client.post(INFER, content=RAW, headers={LENGTH: "0"})
    length = int(response.headers[LENGTH])
    answer = json.loads(response.content[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in answer["outputs"]]
    assert len(sizes) == len(OUTPUTS)
    assert len(response.content) == length + sum(sizes)
    mean = np.frombuffer(response.content[length + sum(sizes[:2]) :][: sizes[2]], "<f4")
    np.testing.assert_allclose(mean, predictor.predict(BAR).mc_mean[0], atol=1e-5)
    for wrong in (b"", RAW[:-4], RAW + RAW):
        assert "raw binary request" in error(client.post(INFER, content=wrong, headers={LENGTH: "0"}), 400)


def test_what_is_read_does_not_depend_on_the_content_type(client: httpx.Client) -> None:
    body, headers = framed(BINARY, RAW)
    for kind in ("application/json", "application/octet-stream", ""):
        assert client.post(INFER, content=body, headers={**headers, "Content-Type": kind}).status_code == 200
        assert client.post(INFER, content=json.dumps(GOOD), headers={"Content-Type": kind}).status_code == 200


def test_null_is_as_good_as_absent(client: httpx.Client) -> None:
    tensor = {**TENSOR, "parameters": None}
    body = {"id": None, "parameters": None, "outputs": None, "inputs": [tensor]}
    answer = client.post(INFER, json=body).json()
    assert "id" not in answer
    assert len(answer["outputs"]) == len(OUTPUTS)


def test_a_bomb_is_refused_at_the_cap(client: httpx.Client) -> None:
    bomb = zlib.compress(b" " * 200_000_000, 9)
    assert len(bomb) < 256 * 1024
    response = client.post(INFER, content=bomb, headers={"Content-Encoding": "deflate"})
    assert "at most 262144 bytes once it is decompressed" in error(response, 413)


@pytest.mark.parametrize(
    ("encoding", "pack", "complaint"),
    [
        ("gzip", lambda body: body, "incorrect header check"),
        ("gzip", lambda body: gzip.compress(body)[:-9], "ends too early"),
        ("gzip", lambda body: gzip.compress(body) + b"x", "bytes follow its end"),
        ("gzip", lambda body: gzip.compress(body)[:-8] + b"\0" * 8, "incorrect data check"),
        ("deflate", gzip.compress, "incorrect header check"),
        ("deflate", lambda body: b"", "ends too early"),
    ],
)
def test_damaged_compression(client: httpx.Client, encoding: str, pack: Callable, complaint: str) -> None:
    body = pack(json.dumps(GOOD).encode())
    assert complaint in error(client.post(INFER, content=body, headers={"Content-Encoding": encoding}), 400)


def test_the_header_length_is_that_of_the_plain_body(client: httpx.Client) -> None:
    body, headers = framed(BINARY, RAW)
    packed = {**headers, "Content-Encoding": "GZIP"}
    assert client.post(INFER, content=gzip.compress(body), headers=packed).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_named(client: httpx.Client, encoding: str) -> None:
    response = client.post(INFER, content=b"x", headers={"Content-Encoding": encoding})
    assert f"is {encoding!r}" in error(response, 415)


def test_a_body_too_large(client: httpx.Client) -> None:
    assert "at most 262144 bytes" in error(client.post(INFER, content=b" " * 300_000), 413)


def test_what_is_not_asked_for_is_not_computed(client: httpx.Client) -> None:
    def members() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("dubio_mutual_information_nats_count"))

    before = members()
    for outputs, parameters in [(["label"], None), (["probabilities", "label"], None)]:
        answer = client.post(INFER, json={**GOOD, "outputs": [{"name": name} for name in outputs]}).json()
        assert answer.get("parameters") == parameters
        assert [output["name"] for output in answer["outputs"]] == outputs
    assert members() == before
    answer = client.post(INFER, json={**GOOD, "outputs": [{"name": "mc_mean"}]}).json()
    assert answer["parameters"] == {"samples": 16}
    assert members() == before + 1
