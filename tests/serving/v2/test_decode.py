from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.models import InputSpec, Work
from dubio.serving.errors import InvalidRequest, ServingError
from dubio.serving.v2.decode import DecodedRequest, SelectedOutput, decode_request, default_outputs, select_outputs
from dubio.serving.v2.input_tensor import ModelSignature
from dubio.serving.v2.outputs import OUTPUTS
from dubio.serving.v2.schema import RequestOutput

SPEC = InputSpec(kind="numbers", shape=(3,), mean=(0.0,) * 3, std=(1.0,) * 3, low=-4.0, high=4.0)
MODEL = ModelSignature(name="m", input=SPEC, classes=4, committee=16, max_rows=5)
INPUT = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
ROWS = np.array([[1, 2, 3]], np.float32)


def read(**changes: object) -> DecodedRequest:
    return decode_request(json.dumps({"inputs": [INPUT], **changes}).encode(), header_length=None, model=MODEL)


def test_everything_is_the_default() -> None:
    decoded = read()
    np.testing.assert_array_equal(decoded.inputs, ROWS)
    assert (decoded.id, decoded.samples, decoded.timeout, decoded.listed) == (None, None, None, False)
    assert [selected.output.name for selected in decoded.outputs] == list(OUTPUTS)
    assert decoded.work == Work.FLAG


def test_parameters_are_read() -> None:
    decoded = read(id="r", parameters={"samples": 4, "timeout": 1500, "binary_data_output": True, "priority": 3})
    assert (decoded.id, decoded.samples, decoded.timeout) == ("r", 4, 0.0015)
    assert all(selected.binary for selected in decoded.outputs)
    assert read(parameters={"timeout": 0}).timeout is None
    assert read(parameters={"samples": "auto"}).samples == "auto"


@pytest.mark.parametrize(
    ("names", "work"),
    [
        (["label", "probabilities"], Work.DETERMINISTIC),
        (["label", "mc_std"], Work.MC),
        (["mc_samples"], Work.MC),
        *[([name], Work.MC) for name in ("mc_mean", "predictive_entropy", "expected_entropy", "mutual_information")],
        (["ood_flag", "label"], Work.FLAG),
        (["ood_p_value"], Work.FLAG),
        (["label_set", "mc_mean"], Work.LABEL_SET),
        (["accepted"], Work.FLAG),
    ],
)
def test_no_more_work_than_the_outputs_need(names: list[str], work: Work) -> None:
    decoded = read(outputs=[{"name": name} for name in names])
    assert decoded.work == work
    assert decoded.listed


def test_json_then_raw() -> None:
    entry = {**INPUT, "data": None, "parameters": {"binary_data_size": 12}}
    head = json.dumps({"inputs": [entry]}).encode()
    decoded = decode_request(head + ROWS.tobytes(), header_length=str(len(head)), model=MODEL)
    np.testing.assert_array_equal(decoded.inputs, ROWS)


def test_raw_alone() -> None:
    decoded = decode_request(ROWS.tobytes(), header_length="0", model=MODEL)
    np.testing.assert_array_equal(decoded.inputs, ROWS)
    assert all(selected.binary for selected in decoded.outputs)
    assert not decoded.listed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(width=32) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(["id", "parameters", "inputs", "outputs"])
FIELDS = st.sampled_from(["name", "shape", "datatype", "data", "parameters"])


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), st.none() | st.text(max_size=5))
def test_bytes_are_read_or_refused(body: bytes, header: str | None) -> None:
    _read_or_refuse(body, header)


@given(st.dictionaries(KEYS, JSON, max_size=2), st.dictionaries(FIELDS, JSON, max_size=2))
def test_requests_with_anything_anywhere_are_read_or_refused(request: dict, tensor: dict) -> None:
    body = json.dumps({"inputs": [{**INPUT, **tensor}], **request}).encode()
    _read_or_refuse(body, None)


def _read_or_refuse(body: bytes, header: str | None) -> None:
    try:
        decoded = decode_request(body, header_length=header, model=MODEL)
    except ServingError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert decoded.inputs.shape[1:] == SPEC.shape
        assert np.isfinite(decoded.inputs).all()
    assert len(refusal) < 1000


def select(*entries: dict, binary: bool = False) -> tuple[SelectedOutput, ...]:
    return select_outputs([RequestOutput.model_validate(entry) for entry in entries], binary=binary, model=MODEL)


def test_the_order_is_the_callers_and_an_outputs_own_choice_wins() -> None:
    entries = [
        {"name": "mc_std", "parameters": {"binary_data": False}},
        {"name": "label"},
        {"name": "mc_mean", "parameters": {"classification": 2}},
    ]
    assert select(*entries, binary=True) == (
        SelectedOutput(OUTPUTS["mc_std"], binary=False),
        SelectedOutput(OUTPUTS["label"], binary=True),
        SelectedOutput(OUTPUTS["mc_mean"], binary=True, classification=2),
    )


def test_none_named_is_none_chosen() -> None:
    assert select() == ()
    for outputs in (None, []):
        assert not read(outputs=outputs).listed
    assert [selected.output.name for selected in default_outputs(binary=True)] == list(OUTPUTS)


@pytest.mark.parametrize(("given", "meant"), [(0, None), (1, 1), (4, 4), (10**12, 4), (None, None)])
def test_there_are_only_so_many_classes(given: int | None, meant: int | None) -> None:
    [selected] = select({"name": "probabilities", "parameters": {"classification": given}})
    assert selected.classification == meant


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (
            {"name": "probabilities", "parameters": {"classification": -1}},
            "classification` to be greater than or equal",
        ),
        ({"name": "probabilities", "parameters": {"classification": "2"}}, "classification` to be a valid integer"),
        ({"name": "probabilities", "parameters": {"classification": True}}, "classification` to be a valid integer"),
        ({"name": "label_set", "parameters": {"classification": 2}}, "which has yes or no for each"),
        ({"name": "mutual_information", "parameters": {"classification": 2}}, "a number for each class"),
        ({"name": "label", "parameters": {"binary_data": 1}}, "binary_data` to be a valid boolean"),
        ({"name": "label", "parameters": {"shared_memory_region": "r"}}, "shared memory is not supported"),
        ({"name": "labels"}, "unexpected inference output 'labels' for model 'm'; its outputs: label, "),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read(outputs=[entry])


def test_an_output_is_named_once() -> None:
    with pytest.raises(InvalidRequest, match="output 'label' already requested"):
        select({"name": "label"}, {"name": "mc_mean"}, {"name": "label"})


def test_samples_go_up_to_the_whole_committee() -> None:
    assert read(parameters={"samples": 16}).samples == 16
    with pytest.raises(InvalidRequest, match=r"in \[2, 16\] or \"auto\", but got 17"):
        read(parameters={"samples": 17})


def test_an_id_has_at_most_256_characters() -> None:
    assert read(id="x" * 256).id == "x" * 256
    with pytest.raises(InvalidRequest, match="`id` to have at most 256 characters"):
        read(id="x" * 257)


def test_a_timeout_is_a_whole_number_of_microseconds() -> None:
    assert read(parameters={"timeout": 2**63 - 1}).timeout == (2**63 - 1) / 1e6
    for timeout in (-1, 2**63, 1.0, True, "1"):
        with pytest.raises(InvalidRequest, match=r"Expected `parameters.timeout` to be .* Microseconds after which"):
            read(parameters={"timeout": timeout})
