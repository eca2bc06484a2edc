from __future__ import annotations

import subprocess
import sys

from dubio.serving.v2.schema import InferRequest


def test_the_types_need_no_torch() -> None:
    code = "import sys, dubio.serving.v2.schema; assert not {'torch', 'fastapi', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_request_of_the_protocol_fits() -> None:
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    InferRequest.model_validate({"id": "r", "inputs": [tensor], "outputs": [{"name": "label"}]})
