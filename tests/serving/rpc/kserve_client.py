"""KServe's own gRPC client, unmodified: `python kserve_client.py ADDRESS URL`.

In a process of its own, for it cannot be loaded beside Triton's client.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.utils.numpy_codec import from_np_dtype

from tests.serving.kinds import FILES, INSTANCES, NUMBERS, ROWS, TEXTS, check_outputs, predictions
from tests.serving.rpc.client import OUTPUTS

CARDS = [row | {"city": row["city"] or "", "member": str(row["member"]).lower()} for row in ROWS]


def inputs(model: str, *, raw: bool) -> list[Any]:
    """The rows of `kinds` as the client holds them."""
    incomes = [np.nan if row["income"] is None else row["income"] for row in ROWS]
    arrays = {
        "row": {"input": np.array(NUMBERS, np.float32)},
        "text": {"input": np.array([text.encode() for text in TEXTS], dtype=object)},
        "pixels": {"input": np.array(FILES, dtype=object)},
        "table": {
            "age": np.array([row["age"] for row in CARDS], np.int64),
            "income": np.array(incomes, np.float64),
            "city": np.array([row["city"].encode() for row in CARDS], dtype=object),
            "member": np.array([row["member"].encode() for row in CARDS], dtype=object),
        },
    }[model]
    built = []
    for name, array in arrays.items():
        built.append(InferInput(name, list(array.shape), from_np_dtype(array.dtype)))
        built[-1].set_data_from_numpy(array, binary_data=raw)
    return built


async def main(address: str, web: httpx.Client) -> None:
    """Every method of the client."""
    async with InferenceGRPCClient(address, retries=0) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("row")
        for model in INSTANCES:
            expected = predictions(web, model, CARDS if model == "table" else INSTANCES[model])
            for raw in (True, False) if model != "pixels" else (True,):  # it puts no files into typed values
                request = InferRequest(model, inputs(model, raw=raw), request_id="r-1")
                response = await client.infer(request)
                assert (response.id, response.model_name) == ("r-1", model)
                assert len(response.outputs) == OUTPUTS
                check_outputs({output.name: output.as_numpy() for output in response.outputs}, expected)
        with pytest.raises(grpc.RpcError) as refusal:
            await client.infer(InferRequest("nothing", inputs("row", raw=True)))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        assert refusal.value.details().startswith("Request for unknown model: 'nothing' is not found.")


if __name__ == "__main__":
    with httpx.Client(base_url=sys.argv[2], timeout=30) as web:
        asyncio.run(main(sys.argv[1], web))
