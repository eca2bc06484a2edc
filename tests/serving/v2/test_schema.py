from __future__ import annotations

from dubio.serving.v2.schema import InferRequest


def test_a_request_of_the_protocol_fits() -> None:
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    request = InferRequest.model_validate({"id": "r", "inputs": [tensor], "outputs": [{"name": "label"}]})
    assert request.inputs[0].model_dump(exclude_unset=True) == tensor
