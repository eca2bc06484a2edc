"""An unmodified `tritonclient.grpc`, plain and asynchronous: `python triton_client.py ADDRESS URL`.

In a process of its own, for it cannot be loaded beside KServe's client.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.serving.kinds import FILES, INSTANCES, NUMBERS, ROWS, TEXTS, check_outputs, predictions
from tests.serving.rpc.client import OUTPUTS

MODELS = ("row", "table", "text", "pixels")
CARDS = [row | {"city": row["city"] or "", "member": str(row["member"]).lower()} for row in ROWS]


def inputs(model: str) -> list[Any]:
    """The rows of `kinds` as the client holds them."""
    incomes = [np.nan if row["income"] is None else row["income"] for row in ROWS]
    arrays = {
        "row": {"input": np.array(NUMBERS, np.float32)},
        "text": {"input": np.array([[text.encode()] for text in TEXTS], dtype=object)},
        "pixels": {"input": np.array(FILES, dtype=object)},
        "table": {
            "age": np.array([[row["age"]] for row in CARDS], np.int64),
            "income": np.array([[each] for each in incomes], np.float64),
            "city": np.array([[row["city"].encode()] for row in CARDS], dtype=object),
            "member": np.array([[row["member"].encode()] for row in CARDS], dtype=object),
        },
    }[model]
    built = []
    for name, array in arrays.items():
        built.append(triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        built[-1].set_data_from_numpy(array)
    return built


def check(result: Any, expected: list[dict[str, Any]], model: str) -> None:
    """The answer is that over HTTP."""
    answer = result.get_response()
    assert (answer.model_name, answer.model_version) == (model, "1")
    names = [output.name for output in answer.outputs]
    assert len(names) == OUTPUTS
    check_outputs({name: result.as_numpy(name) for name in names}, expected)


def refusals(call: Any) -> Iterator[tuple[str, str]]:
    """Status and text of what a client sends wrongly, as the client tells them."""
    wrong = triton.InferInput("input", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
    for model, sent in (("nothing", inputs("row")), ("row", [wrong])):
        with pytest.raises(InferenceServerException) as refusal:
            call(model, sent)
        yield refusal.value.status(), refusal.value.message()


def plain(address: str, web: httpx.Client) -> None:
    """Every method of the client that the service answers."""
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("row")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata().name == "dubio"
        assert [each.name for each in client.get_model_metadata("table").inputs] == ["age", "income", "city", "member"]
        config = client.get_model_config("row", as_json=True)["config"]
        assert (config["max_batch_size"], config["input"][0]["data_type"]) == (64, "TYPE_FP32")
        for model in MODELS:
            expected = predictions(web, model, CARDS if model == "table" else INSTANCES[model])
            check(client.infer(model, inputs(model)), expected, model)
        wanted = [triton.InferRequestedOutput("mc_std"), triton.InferRequestedOutput("label", class_count=0)]
        result = client.infer("row", inputs("row"), outputs=wanted, request_id="r-1", timeout=10_000_000, priority=1)
        assert result.get_response().id == "r-1"
        assert [output.name for output in result.get_response().outputs] == ["mc_std", "label"]
        best = client.infer("row", inputs("row"), outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
        assert best.as_numpy("probabilities").shape == (3, 2)
        compressed = client.infer("row", inputs("row"), compression_algorithm="gzip")
        check(compressed, predictions(web, "row"), "row")
        done: list[Any] = []
        for _ in range(8):
            client.async_infer("row", inputs("row"), lambda result, error: done.append((result, error)))
        while len(done) < 8:
            pass
        assert [error for _, error in done] == [None] * 8
        statistics = client.get_inference_statistics("row").model_stats
        assert statistics[0].inference_count >= 39
        assert statistics[0].inference_stats.success.count >= 13
        [unknown, misshapen] = refusals(client.infer)
        assert unknown[0] == "StatusCode.NOT_FOUND"
        assert unknown[1].startswith("Request for unknown model: 'nothing' is not found.")
        assert misshapen[0] == "StatusCode.INVALID_ARGUMENT"
        assert misshapen[1].startswith(
            "unexpected shape for input 'input' for model 'row'. Expected [-1, 5], got [1, 4]"
        )
        with pytest.raises(InferenceServerException) as refusal:
            client.get_model_repository_index()
        assert refusal.value.status() == "StatusCode.PERMISSION_DENIED"
        with pytest.raises(InferenceServerException) as refusal:
            client.infer("row", inputs("row"), client_timeout=1e-6)
        assert refusal.value.status() == "StatusCode.DEADLINE_EXCEEDED"


async def asynchronous(address: str, web: httpx.Client) -> None:
    """The same over `tritonclient.grpc.aio`, many at a time."""
    expected = {model: predictions(web, model, CARDS if model == "table" else INSTANCES[model]) for model in MODELS}
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("text", "1")
        for model in MODELS:
            check(await client.infer(model, inputs(model)), expected[model], model)
        results = await asyncio.gather(*(client.infer("row", inputs("row")) for _ in range(32)))
        for result in results:
            np.testing.assert_array_equal(result.as_numpy("probabilities"), results[0].as_numpy("probabilities"))
        with pytest.raises(InferenceServerException) as refusal:
            await client.infer("nothing", inputs("row"))
        assert refusal.value.status() == "StatusCode.NOT_FOUND"


if __name__ == "__main__":
    with httpx.Client(base_url=sys.argv[2], timeout=30) as web:
        plain(sys.argv[1], web)
        asyncio.run(asynchronous(sys.argv[1], web))
