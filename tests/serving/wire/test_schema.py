from __future__ import annotations

import subprocess
import sys

import pytest

from dubio.serving.v1.schema import Parameters, PredictRequest
from dubio.serving.v2 import schema as v2
from dubio.serving.wire.schema import Incoming, Wire, describe_content


def test_wire_types_and_the_reading_of_v1_need_no_torch() -> None:
    code = (
        "import sys, dubio.serving.wire.schema, dubio.serving.wire.envelope, dubio.serving.wire.arrays, "
        "dubio.serving.v1.schema, dubio.serving.v1.decode, dubio.serving.v2.schema, dubio.serving.settings, "
        "dubio.serving.cli; assert not {'torch', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def incoming(kind: type[Incoming] = Incoming) -> list[type[Incoming]]:
    """Every type that callers send."""
    return [kind, *(each for child in kind.__subclasses__() for each in incoming(child))]


def test_every_field_that_callers_send_says_what_it_means() -> None:
    kinds = incoming()
    assert {Parameters, PredictRequest, v2.InferRequest, v2.UnloadParameters} <= set(kinds)
    for kind in kinds:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"


def test_nothing_is_converted() -> None:
    for given in ({"timeout": "3"}, {"timeout": 3.0}, {"timeout": True}, {"binary_data_output": "true"}):
        with pytest.raises(ValueError, match="should be a valid"):
            v2.InferParameters.model_validate(given)


@pytest.mark.parametrize("kind", [v2.OutputParameters, v2.InputParameters, v2.InferParameters])
def test_what_is_only_accepted_for_compatibility_is_not_looked_at(kind: type[Incoming]) -> None:
    assert kind.model_validate({"content_type": 3}).content_type == 3


def test_references_point_to_the_components() -> None:
    reference = {"$ref": "#/components/schemas/InferRequest"}
    assert describe_content(v2.InferRequest) == {"application/json": {"schema": reference}}
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        Wire.model_validate({"more": 1})
