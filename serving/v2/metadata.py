"""Who answers, and what the models take and give, in the words of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dubio.serving.repository.repository import ServedModel
from dubio.serving.v2.input_tensor import list_inputs
from dubio.serving.v2.outputs import OUTPUTS, Output

SERVER = "dubio"
EXTENSIONS = ("classification", "model_configuration", "binary_tensor_data", "parameters", "statistics")
# Where loading and unloading is not refused to everybody.
REPOSITORY = ("model_repository", "model_repository(unload_dependents)")
PLATFORM = "pytorch_checkpoint"


def describe_server(version: str, *, loads_on_request: bool) -> dict[str, Any]:
    """The answer to GET /v2; only what works here is named."""
    return {"name": SERVER, "version": version, "extensions": [*EXTENSIONS, *(REPOSITORY if loads_on_request else ())]}


def describe_model(model: ServedModel, versions: Sequence[str]) -> dict[str, Any]:
    """A model's tensors; outputs that it cannot give, as it was not calibrated for them, are left out."""
    classes = len(model.facts.classes)
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": list_inputs(model.facts.input),
        "outputs": [
            {"name": output.name, "datatype": output.datatype, "shape": output.shape(-1, classes)}
            for output in _outputs(model)
        ],
    }


def configure(model: ServedModel, max_rows: int) -> dict[str, Any]:
    """What clients such as perf_analyzer want to know before they ask: Triton's `ModelConfig`."""
    classes = len(model.facts.classes)
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "pytorch",
        "max_batch_size": max_rows,
        "input": [
            {"name": tensor["name"], "data_type": _type(tensor["datatype"]), "dims": tensor["shape"][1:]}
            for tensor in list_inputs(model.facts.input)
        ],
        "output": [_configure_output(output, classes) for output in _outputs(model)],
        "dynamic_batching": {},
        "parameters": {"samples": {"string_value": str(model.facts.num_samples)}},
    }


def _configure_output(output: Output, classes: int) -> dict[str, Any]:
    config: dict[str, Any] = {"name": output.name, "data_type": _type(output.datatype)}
    if output.per_class:
        return {**config, "dims": [classes]}
    # In a ModelConfig no shape is empty, not even that of one number a row.
    return {**config, "dims": [1], "reshape": {"shape": []}}


def _type(datatype: str) -> str:
    """What a ModelConfig calls a datatype."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _outputs(model: ServedModel) -> list[Output]:
    return [output for output in OUTPUTS.values() if output.given(model.facts.card)]
