from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.models import Work
from dubio.serving.errors import InvalidRequest, MalformedJSON, ServingError
from dubio.serving.v2.decode import (
    Inference,
    Requested,
    everything,
    parse,
    parse_index,
    parse_load,
    parse_unload,
    read_outputs,
)
from dubio.serving.v2.input_tensor import Target
from dubio.serving.v2.outputs import OUTPUTS

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


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"parameters":{}}'])
def test_nothing_is_enough(body: bytes) -> None:
    parse_load(body)
    parse_unload(body)


def test_what_may_be_said() -> None:
    assert not parse_index(b"")
    assert not parse_index(b'{"ready":false}')
    assert parse_index(b'{"ready":true}')
    for value in (b"true", b"false"):
        parse_unload(b'{"parameters":{"unload_dependents":' + value + b"}}")


@pytest.mark.parametrize("name", ["config", "file:1/model.ckpt", "file:../../x"])
def test_models_do_not_come_with_the_request(name: str) -> None:
    with pytest.raises(InvalidRequest, match="own disk"):
        parse_load(b'{"parameters":{"%b":"x"}}' % name.encode())


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"ready":1}', b'{"reddy":true}', b'{"parameters":1}', b'{"parameters":{"x":1}}', b"null"]
)
def test_what_may_not(body: bytes) -> None:
    for reader in (parse_index, parse_load, parse_unload):
        if b"ready" not in body or reader is parse_index:
            with pytest.raises(InvalidRequest, match="Expected"):
                reader(body)


def test_a_wrong_flag_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unload_dependents"):
        parse_unload(b'{"parameters":{"unload_dependents":1}}')


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json(body: bytes) -> None:
    for reader in (parse_index, parse_load, parse_unload):
        with pytest.raises(MalformedJSON):
            reader(body)


def read_named(entries: object, *, binary: bool = False) -> tuple[Requested, ...]:
    return read_outputs(entries, binary=binary, target=TARGET)


def test_the_order_is_the_callers_and_an_outputs_own_choice_wins() -> None:
    entries = [
        {"name": "mc_std", "parameters": {"binary_data": False}},
        {"name": "label"},
        {"name": "mc_mean", "parameters": {"classification": 2}},
    ]
    assert read_named(entries, binary=True) == (
        Requested(OUTPUTS["mc_std"], binary=False),
        Requested(OUTPUTS["label"], binary=True),
        Requested(OUTPUTS["mc_mean"], binary=True, classification=2),
    )


def test_none_named_is_none_chosen() -> None:
    assert read_named(None) == read_named([]) == ()
    assert [requested.output.name for requested in everything(binary=True)] == [
        name for name in OUTPUTS if name != "mc_samples"
    ]


@pytest.mark.parametrize(("given", "meant"), [(0, None), (1, 1), (4, 4), (10**12, 4), (None, None)])
def test_there_are_only_so_many_classes(given: int | None, meant: int | None) -> None:
    [requested] = read_named([{"name": "probabilities", "parameters": {"classification": given}}])
    assert requested.classification == meant


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"name": "probabilities", "parameters": {"classification": -1}}, "at least 1"),
        ({"name": "probabilities", "parameters": {"classification": "2"}}, "at least 1"),
        ({"name": "probabilities", "parameters": {"classification": True}}, "at least 1"),
        ({"name": "mutual_information", "parameters": {"classification": 2}}, "a number for each class"),
        ({"name": "label", "parameters": {"binary_data": 1}}, "true or false"),
        ({"name": "label", "parameters": {"shared_memory_region": "r"}}, "shared memory is not supported"),
        ({"name": "labels"}, "unexpected inference output 'labels' for model 'm'; its outputs: label, "),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read_named([entry])


def test_an_output_is_named_once() -> None:
    with pytest.raises(InvalidRequest, match="output 'label' already requested"):
        read_named([{"name": "label"}, {"name": "mc_mean"}, {"name": "label"}])
