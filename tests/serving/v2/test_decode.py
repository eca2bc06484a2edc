from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Work
from serving.errors import ServingError
from serving.v2.decode import Inference, parse
from serving.v2.input_tensor import Target
from serving.v2.outputs import OUTPUTS

TARGET = Target(name="m", shape=(3,), classes=4, committee=16, max_rows=5)
INPUT = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
ROWS = np.array([[1, 2, 3]], np.float32)


def read(**changes: object) -> Inference:
    return parse(json.dumps({"inputs": [INPUT], **changes}).encode(), header_length=None, target=TARGET)


def test_everything_is_the_default() -> None:
    asked = read()
    np.testing.assert_array_equal(asked.inputs, ROWS)
    assert (asked.id, asked.samples, asked.timeout, asked.listed) == (None, None, None, False)
    assert [requested.output.name for requested in asked.outputs] == [name for name in OUTPUTS if name != "mc_samples"]
    assert asked.work == Work.FLAG


def test_parameters_are_read() -> None:
    asked = read(id="r", parameters={"samples": 4, "timeout": 1500, "binary_data_output": True, "priority": 3})
    assert (asked.id, asked.samples, asked.timeout) == ("r", 4, 0.0015)
    assert all(requested.binary for requested in asked.outputs)
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
    ],
)
def test_no_more_work_than_the_outputs_need(names: list[str], work: Work) -> None:
    asked = read(outputs=[{"name": name} for name in names])
    assert asked.work == work
    assert asked.listed


def test_json_then_raw() -> None:
    entry = {**INPUT, "data": None, "parameters": {"binary_data_size": 12}}
    head = json.dumps({"inputs": [entry]}).encode()
    asked = parse(head + ROWS.tobytes(), header_length=str(len(head)), target=TARGET)
    np.testing.assert_array_equal(asked.inputs, ROWS)


def test_raw_alone() -> None:
    asked = parse(ROWS.tobytes(), header_length="0", target=TARGET)
    np.testing.assert_array_equal(asked.inputs, ROWS)
    assert all(requested.binary for requested in asked.outputs)
    assert not asked.listed


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
        asked = parse(body, header_length=header, target=TARGET)
    except ServingError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert asked.inputs.shape[1:] == TARGET.shape
        assert np.isfinite(asked.inputs).all()
    assert len(refusal) < 1000
