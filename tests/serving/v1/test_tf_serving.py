from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.serving.errors import ServingError
from dubio.serving.v1 import decode, tf_serving
from tests.serving.conftest import COLUMNS
from tests.serving.kinds import ROWS

NUMBERS = InputSpec(kind="numbers", shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2, low=-4.0, high=4.0)
TABLE = InputSpec(kind="table", shape=(10,), mean=(0.0,) * 10, std=(1.0,) * 10, low=0, high=9000, columns=COLUMNS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("age"), inner, max_size=3)
    ),
    max_leaves=9,
)


def read(spec: InputSpec, **request: Any) -> decode.DecodedRequest:
    return tf_serving.decode_request(json.dumps(request).encode(), spec=spec, committee=16, max_rows=4)


def test_rows_and_columns_are_the_numbers_of_our_own_call() -> None:
    own = decode.decode_request(json.dumps({"instances": ROWS}).encode(), spec=TABLE, committee=16, max_rows=4)
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    for request in ({"instances": ROWS}, {"inputs": columns}, {"inputs": ROWS}):
        np.testing.assert_array_equal(read(TABLE, **request).inputs, own.inputs)
    for request in ({"instances": [[1, 2]]}, {"instances": [{"input": [1, 2]}]}, {"inputs": {"input": [[1, 2]]}}):
        assert read(NUMBERS, **request).inputs.tolist() == [[1, 2]]


def test_a_column_may_be_called_input() -> None:
    column = COLUMNS[0].model_copy(update={"name": "input"})
    spec = InputSpec(kind="table", shape=(1,), mean=(0.0,), std=(1.0,), low=0, high=90, columns=[column])
    assert read(spec, instances=[{"input": 20}]).inputs.tolist() == [[20]]
    assert read(spec, inputs={"input": [20, 30]}).inputs.tolist() == [[20], [30]]


def test_parameters() -> None:
    assert read(NUMBERS, instances=[[1, 2]], parameters={"samples": "auto", "resize": False}).samples == "auto"
    assert read(NUMBERS, instances=[[1, 2]], parameters=None, inputs=None, signature_name=3).samples is None


@pytest.mark.parametrize("spec", [NUMBERS, TABLE])
@given(request=st.fixed_dictionaries({}, optional={"instances": JSON, "inputs": JSON, "parameters": JSON}))
def test_anything_is_read_or_refused(spec: InputSpec, request: dict[str, Any]) -> None:
    try:
        decoded = read(spec, **request)
    except (ServingError, InvalidInput) as error:
        refusal = str(error)
    else:
        refusal = ""
        assert decoded.inputs.shape[1:] == spec.shape
    assert len(refusal) < 1000
