from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.serving.errors import InvalidRequest, TooManyRows
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.rpc.decode import FIELDS, decode_request
from dubio.serving.v2.decode import DecodedRequest
from dubio.serving.v2.input_tensor import ModelSignature
from tests.serving.rpc.client import add

MODEL = ModelSignature(
    name="m",
    input=InputSpec(kind="numbers", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0), low=-9, high=9),
    classes=3,
    committee=16,
    max_rows=3,
)


def ask(
    values: object = ((1, 2), (3, 4)), datatype: str = "FP32", shape: tuple = (2, 2), *, raw: bool
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    add(request, "input", values, datatype, list(shape), raw=raw)
    return request


def decode(request: pb.ModelInferRequest) -> DecodedRequest:
    return decode_request(request, model=MODEL)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", sorted(set(FIELDS) - {"BOOL", "BYTES"}))
def test_rows_are_read(datatype: str, raw: bool) -> None:
    decoded = decode(ask(datatype=datatype, raw=raw))
    assert decoded.inputs.dtype == np.float32
    assert decoded.inputs.tolist() == [[1, 2], [3, 4]]
    assert (decoded.id, decoded.samples, decoded.timeout, decoded.listed) == (None, None, None, False)


def test_what_stands_beside_the_rows_is_read() -> None:
    request = ask(raw=True)
    request.id = "r"
    request.parameters["samples"].uint64_param = 4
    request.parameters["timeout"].int64_param = 500_000
    request.outputs.add(name="mc_mean")
    decoded = decode(request)
    assert (decoded.id, decoded.samples, decoded.timeout) == ("r", 4, 0.5)
    assert [selected.output.name for selected in decoded.outputs] == ["mc_mean"]


def _set(path: str, value: object) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        holder = request.inputs[0] if path.startswith("inputs.") else request
        name = path.removeprefix("inputs.")
        if name == "shape":
            del holder.shape[:]
            holder.shape.extend(value)
        elif name.startswith("parameters."):
            setattr(request.parameters[name.split(".")[1]], name.split(".")[2], value)
        else:
            setattr(holder, name, value)

    return change


HOSTILE: list[tuple[Callable, str]] = [
    (_set("inputs.shape", []), "Expected `inputs[0].shape` to have at least 1 item"),
    (_set("inputs.shape", [1] * 17), "Expected `inputs[0].shape` to have at most 16 items"),
    (_set("inputs.shape", [1] * 100_000), "Expected `inputs[0].shape` to have at most 16 items"),
    (_set("inputs.shape", [-1, 2]), "unexpected shape for input 'input' for model 'm'. Expected [-1, 2], got [-1, 2]"),
    (_set("inputs.shape", [0, 2]), "unexpected shape for input 'input'"),
    (_set("inputs.shape", [-(2**63), 2]), "unexpected shape for input 'input'"),
    (_set("inputs.shape", [2, 2**62]), "unexpected shape for input 'input'"),
    (_set("inputs.name", "other"), "unexpected inference input 'other' for model 'm'; its only input is 'input'."),
    (_set("inputs.datatype", "FP8"), "data-type is 'FP8', but model 'm' expects 'FP32'"),
    (_set("inputs.datatype", ""), "data-type is '', but model 'm' expects 'FP32'"),
    (_set("inputs.datatype", "BOOL"), "data-type is 'BOOL', but model 'm' expects 'FP32'"),
    (_set("inputs.datatype", "BYTES"), "data-type is 'BYTES', but model 'm' expects 'FP32'"),
    (_set("id", "x" * 257), "Expected `id` to have at most 256 characters"),
    (_set("parameters.samples.int64_param", 1), "Expected `parameters.samples` to be greater than or equal to 2"),
    (_set("parameters.samples.int64_param", 17), 'to be an integer in [2, 16] or "auto", but got 17'),
    (_set("parameters.samples.bool_param", True), "Expected `parameters.samples` to be a valid integer"),
    (_set("parameters.timeout.int64_param", -1), "Expected `parameters.timeout` to be greater than or equal to 0"),
    (_set("parameters.sample.int64_param", 4), "got `sample`; did you mean `samples`?"),
    (lambda request: request.inputs[0].parameters["shared_memory_region"], "got `shared_memory_region`; shared memory"),
    (lambda request: request.outputs.add(name="x"), "unexpected inference output 'x' for model 'm'"),
    (lambda request: request.ClearField("inputs"), "Expected `inputs` to have at least 1 item"),
    (lambda request: request.inputs.extend([request.inputs[0]] * 4096), "Expected `inputs` to have at most 4096 items"),
]


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize(("change", "complaint"), HOSTILE)
def test_what_breaks_a_rule_is_refused_in_the_words_of_json(change: Callable, complaint: str, raw: bool) -> None:
    request = ask(raw=raw)
    change(request)
    with pytest.raises(InvalidRequest) as refusal:
        decode(request)
    assert complaint in str(refusal.value)
    assert len(str(refusal.value)) < 800


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(TooManyRows, match="batch-size must be <= 3 for 'm', but got 4"):
        decode(ask([[0, 0]] * 4, shape=(4, 2), raw=True))


@pytest.mark.parametrize("cut", [0, 1, 15, 17, 1000])
def test_raw_values_of_another_length_are_refused(cut: int) -> None:
    request = ask(raw=True)
    request.raw_input_contents[0] = bytes(cut)
    with pytest.raises(InvalidRequest, match=f"Expected 16, got {cut}; FP32 of shape .2, 2. takes 16 bytes"):
        decode(request)


def test_values_come_once_and_in_one_place() -> None:
    both = ask(raw=True)
    both.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    more = ask(raw=True)
    more.raw_input_contents.append(b"")
    wrong = ask(raw=False)
    wrong.inputs[0].datatype = "FP64"
    several = ask(raw=False)
    several.inputs[0].contents.bool_contents.append(True)
    for request, complaint in (
        (both, "once, but it has `contents`, and the request has `raw_input_contents`"),
        (more, "one entry for each input, but the inputs are 1 and the entries 2"),
        (
            wrong,
            "in `contents.fp64_contents`, as its datatype FP64 says, or in `raw_input_contents`, but they are in fp32",
        ),
        (several, "but they are in bool_contents, fp32_contents; send them there alone."),
        (
            pb.ModelInferRequest(inputs=[{"name": "input", "datatype": "FP32", "shape": [1, 2]}]),
            "but there are none; send them there alone.",
        ),
    ):
        with pytest.raises(InvalidRequest) as refusal:
            decode(request)
        assert complaint in str(refusal.value)


def test_another_number_of_values_is_refused() -> None:
    request = ask(raw=False)
    request.inputs[0].contents.fp32_contents.append(5)
    with pytest.raises(
        InvalidRequest, match=r"`contents.fp32_contents` of input 'input' to hold 4 values, as its shape"
    ):
        decode(request)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("INT16", -32769), ("UINT8", 256), ("UINT16", 65536)])
def test_whole_numbers_that_their_datatype_does_not_have_are_refused(datatype: str, value: int) -> None:
    request = ask(datatype=datatype, raw=False)
    field = request.inputs[0].contents
    getattr(field, FIELDS[datatype])[0] = value
    with pytest.raises(InvalidRequest, match="to hold integers in"):
        decode(request)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_numbers_that_are_not_finite_are_refused(value: float, raw: bool) -> None:
    with pytest.raises(InvalidRequest, match="to be finite and to fit 32-bit floats"):
        decode(ask([[1, value], [3, 4]], datatype="FP64", raw=raw))
