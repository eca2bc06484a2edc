"""KServe's own client, unmodified, in both of its protocols, through a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.serving.kinds import FILES, INSTANCES, NUMBERS, ROWS, TEXTS, check_outputs, predictions

kserve = import_module("kserve")

MODELS = tuple(INSTANCES)
FRAME = pd.DataFrame([row | {"member": str(row["member"]).lower()} for row in ROWS])


def drive(protocol: str, work: Callable[[Any], Any]) -> Any:
    """What `work` does with KServe's client of a protocol."""

    async def run() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol, retries=0)) as client:
            return await work(client)

    return asyncio.run(run())


def inputs(model: str, *, binary: bool) -> list[Any]:
    """The model's rows as KServe's client holds them."""
    arrays = {
        "row": {"input": np.array(NUMBERS, np.float32)},
        "text": {"input": np.array([text.encode() for text in TEXTS], dtype=object)},
        "pixels": {"input": np.array(FILES, dtype=object)},
        "table": {
            "age": FRAME["age"].to_numpy(),
            "income": FRAME["income"].to_numpy(np.float64),
            "city": FRAME["city"].fillna("").to_numpy(dtype=object),  # bytes cannot be missing; nothing is
            "member": FRAME["member"].to_numpy(dtype=object),
        },
    }[model]
    built = []
    for name, array in arrays.items():
        datatype = import_module("kserve.utils.numpy_codec").from_np_dtype(array.dtype)
        built.append(kserve.InferInput(name, list(array.shape), datatype, parameters={"of_the_callers": "x"}))
        built[-1].set_data_from_numpy(array, binary_data=binary)
    return built


# Its client puts no files into JSON.
@pytest.mark.parametrize(
    ("model", "binary"),
    [(model, binary) for model in MODELS for binary in (True, False) if model != "pixels" or binary],
)
def test_v2(kinds: httpx.Client, model: str, binary: bool) -> None:
    request = kserve.InferRequest(
        model_name=model,
        infer_inputs=inputs(model, binary=binary),
        request_id="r-1",
        parameters={"binary_data_output": binary, "of_the_callers": 3},
    )
    response = drive("v2", lambda client: client.infer(str(kinds.base_url), request, model_name=model))
    assert (response.id, response.model_name) == ("r-1", model)
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    listed = kinds.get(f"/v2/models/{model}").json()["outputs"]
    assert list(outputs) == [output["name"] for output in listed]
    check_outputs(outputs, predictions(kinds, model))


def test_v2_with_outputs_that_are_named(kinds: httpx.Client) -> None:
    requested = import_module("kserve.protocol.infer_type").RequestedOutput
    wanted = [requested("mc_std", parameters={"binary_data": False}), requested("label")]
    request = kserve.InferRequest("row", inputs("row", binary=True), request_outputs=wanted)
    response = drive("v2", lambda client: client.infer(str(kinds.base_url), request, model_name="row"))
    assert [output.name for output in response.outputs] == ["mc_std", "label"]
    expected = [answer["mc"]["std"] for answer in predictions(kinds, "row")]
    assert np.array_equal(response.outputs[0].as_numpy(), np.array(expected, np.float32))


@pytest.mark.parametrize("model", MODELS)
def test_v1(kinds: httpx.Client, model: str) -> None:
    data = {"instances": INSTANCES[model]}
    answer = drive("v1", lambda client: client.infer(str(kinds.base_url), data, model_name=model))
    assert answer == {"predictions": predictions(kinds, model)}


def test_v1_by_column(kinds: httpx.Client) -> None:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    answer = drive("v1", lambda client: client.infer(str(kinds.base_url), {"inputs": columns}, model_name="table"))
    assert answer == {"predictions": predictions(kinds, "table")}


def test_health(kinds: httpx.Client) -> None:
    base = str(kinds.base_url)
    assert drive("v2", lambda client: client.is_server_ready(base))
    assert drive("v2", lambda client: client.is_server_live(base))
    for protocol in ("v1", "v2"):
        assert drive(protocol, lambda client: client.is_model_ready(base, "row")) is True
    assert drive("v2", lambda client: client.is_model_ready(base, "nothing")) is False


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_errors_are_read_by_the_client(kinds: httpx.Client, protocol: str) -> None:
    base = str(kinds.base_url)
    for model, complaint in {"nothing": "got 'nothing'; loaded:", "row": "Expected `in"}.items():
        with pytest.raises(httpx.HTTPStatusError, match=complaint):
            drive(protocol, lambda client, model=model: client.infer(base, {"of_the_callers": 1}, model_name=model))
