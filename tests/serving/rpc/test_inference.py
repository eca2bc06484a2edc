"""Every call, beside its twin over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from dubio.serving.rpc import calls
from dubio.serving.rpc import open_inference_pb2 as pb
from tests.serving.kinds import INSTANCES, check_outputs, predictions
from tests.serving.rpc.client import OUTPUTS, Client, add, ask, read
from tests.serving.v2.test_repository_routes import put

MODELS = tuple(INSTANCES)
KEY = "a-good-key-for-tests-0123456789"


def plain(message: Any) -> Any:
    """A message as JSON has it, but for int64, which becomes text there."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def numbers(document: Any) -> Any:
    """The same with whole numbers for texts of digits, and without what is empty."""
    if isinstance(document, dict):
        return {name: numbers(value) for name, value in document.items() if value not in ({}, [], "", None)}
    if isinstance(document, list):
        return [numbers(value) for value in document]
    return int(document) if isinstance(document, str) and document.lstrip("-").isdigit() else document


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_http_to_the_last_bit(rpc: Client, web: httpx.Client, model: str, raw: bool) -> None:
    answer = rpc.call("ModelInfer", ask(model, raw=raw, id="r-1"))
    assert (answer.model_name, answer.model_version, answer.id) == (model, "1", "r-1")
    assert bool(answer.raw_output_contents) == raw
    outputs = read(answer)
    listed = web.get(f"/v2/models/{model}").json()["outputs"]
    assert [(output.name, output.datatype) for output in answer.outputs] == [
        (output["name"], output["datatype"]) for output in listed
    ]
    expected = predictions(web, model)
    if model == "table":  # bytes cannot be missing
        instances = [
            row | {"city": row["city"] or "", "member": str(row["member"]).lower()} for row in INSTANCES[model]
        ]
        expected = predictions(web, model, instances)
    check_outputs(outputs, expected)
    assert answer.parameters["ood_level"].double_param == expected[0]["ood"]["level"]


@pytest.mark.parametrize("datatype", ["FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_numbers_of_every_datatype_are_the_same_rows(rpc: Client, datatype: str, raw: bool) -> None:
    rows = [[0, 1, 2, 3, 1], [3, 2, 1, 0, 2]]
    request = pb.ModelInferRequest(model_name="row")
    add(request, "input", rows, datatype, [2, 5], raw=raw)
    plain_request = pb.ModelInferRequest(model_name="row")
    add(plain_request, "input", rows, "FP32", [2, 5], raw=True)
    outputs, expected = (read(rpc.call("ModelInfer", each)) for each in (request, plain_request))
    for name in expected:
        np.testing.assert_array_equal(outputs[name], expected[name])


def test_half_precision_goes_raw(rpc: Client) -> None:
    request = pb.ModelInferRequest(model_name="row")
    add(request, "input", np.ones((1, 5)), "FP16", [1, 5], raw=True)
    assert len(rpc.call("ModelInfer", request).outputs) == OUTPUTS
    del request.raw_input_contents[:]
    assert rpc.refused("ModelInfer", request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Expected input 'input' of datatype FP16 in `raw_input_contents`, but it is not there; send it so, or FP32.",
    )


def test_outputs_and_parameters_are_read_as_over_http(rpc: Client, web: httpx.Client) -> None:
    request = ask("row", raw=False)
    request.parameters["samples"].int64_param = 8
    request.parameters["of_the_callers"].string_param = "x"
    request.outputs.add(name="mc_mean")
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    answer = rpc.call("ModelInfer", request)
    body = {
        "inputs": [{"name": "input", "shape": [3, 5], "datatype": "FP32", "data": INSTANCES["row"]}],
        "parameters": {"samples": 8},
        "outputs": [{"name": "mc_mean"}, {"name": "probabilities", "parameters": {"classification": 2}}],
    }
    expected = web.post("/v2/models/row/infer", json=body).json()
    assert answer.parameters["samples"].int64_param == expected["parameters"]["samples"] == 8
    outputs = read(answer)
    assert outputs["mc_mean"].ravel().tolist() == np.float32(expected["outputs"][0]["data"]).tolist()
    assert [text.decode() for text in outputs["probabilities"].ravel()] == expected["outputs"][1]["data"]
    request.parameters["samples"].string_param = "auto"
    assert rpc.call("ModelInfer", request).parameters["samples"].string_param == "auto"


def test_an_explanation_comes_if_it_is_asked_for(rpc: Client, web: httpx.Client) -> None:
    request = ask("row", raw=True)
    request.parameters["explain"].bool_param = True
    outputs = read(rpc.call("ModelInfer", request))
    assert len(outputs["ood_explanation"]) == 3
    assert b"p_values" in outputs["ood_explanation"][0] or outputs["ood_explanation"][0].startswith(b"{")


@pytest.mark.parametrize("model", ["row", "table"])
def test_metadata_and_configuration_are_those_of_http(rpc: Client, web: httpx.Client, model: str) -> None:
    for version in ("", "1"):
        metadata = rpc.call("ModelMetadata", pb.ModelMetadataRequest(name=model, version=version))
        assert numbers(plain(metadata)) == numbers(web.get(f"/v2/models/{model}").json())
        config = rpc.call("ModelConfig", pb.ModelConfigRequest(name=model, version=version)).config
        expected = web.get(f"/v2/models/{model}/config").json()
        assert [each.reshape.shape for each in config.output] == [[]] * OUTPUTS
        expected["output"] = [{k: v for k, v in each.items() if k != "reshape"} for each in expected["output"]]
        got = plain(config)
        got["output"] = [{k: v for k, v in each.items() if k != "reshape"} for each in got["output"]]
        assert numbers(got) == numbers(expected)


def test_the_server_and_how_it_stands(rpc: Client, web: httpx.Client) -> None:
    assert rpc.call("ServerLive").live
    assert rpc.call("ServerReady").ready
    assert rpc.call("ModelReady", pb.ModelReadyRequest(name="row", version="1")).ready
    assert not rpc.call("ModelReady", pb.ModelReadyRequest(name="nothing")).ready
    assert not rpc.call("ModelReady", pb.ModelReadyRequest(name="row", version="2")).ready
    assert plain(rpc.call("ServerMetadata")) == web.get("/v2").json()


def test_statistics_are_those_of_http(rpc: Client, web: httpx.Client) -> None:
    rpc.call("ModelInfer", ask("row", raw=True))
    for name, path in (("row", "/v2/models/row/stats"), ("", "/v2/models/stats")):
        expected = numbers(web.get(path).json())
        got = numbers(plain(rpc.call("ModelStatistics", pb.ModelStatisticsRequest(name=name))))
        assert got == expected
    assert expected["model_stats"][1]["inference_stats"]["compute_output"]["count"] > 0


@pytest.mark.parametrize(
    "name",
    ["ModelStreamInfer", "SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"],
)
def test_what_is_not_supported_says_so(rpc: Client, name: str) -> None:
    method = rpc.channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
    with pytest.raises(grpc.RpcError) as refusal:
        method(b"", timeout=30)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"but got {name}: " in refusal.value.details()


def test_administrators_load_and_unload_in_both_dialects(
    serve_rpc: Callable, settings: Callable, numbers_checkpoint: Path, checkpoint: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    put(numbers_checkpoint, root / "row" / "1")
    given = settings(model_repository=root, model_control="explicit", models=(f"bars={checkpoint}",))
    given = given.model_copy(update={"api_keys": settings(api_keys=f"infer,admin:{KEY}").api_keys})
    with serve_rpc(given) as served, Client(served.address, x_api_key=KEY) as rpc:
        index = {each.name: each for each in rpc.call("RepositoryIndex").models}
        assert (index["bars"].state, index["row"].state) == ("READY", "UNAVAILABLE")
        assert index["row"].reason
        assert [each.name for each in rpc.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models] == [
            "bars"
        ]
        for dialect in ({"model_name": "row"}, {"repository_name": "row"}):
            loaded = rpc.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(**dialect))
            assert (loaded.model_name, loaded.is_loaded) == ("row", True)
            assert rpc.call("ModelInfer", ask("row", raw=True)).model_version == "1"
            assert rpc.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(**dialect)).is_unloaded
            assert rpc.refused("ModelInfer", ask("row", raw=True))[0] is grpc.StatusCode.NOT_FOUND
        code, text = rpc.refused("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nothing"))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "'nothing'" in text
        request = pb.RepositoryModelLoadRequest(model_name="row")
        request.parameters["config"].string_param = "{}"
        code, text = rpc.refused("RepositoryModelLoad", request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "got `config`; models are loaded from the service's own disk" in text
        unload = pb.RepositoryModelUnloadRequest(model_name="row")
        unload.parameters["unload_dependents"].bytes_param = b"x"
        code, text = rpc.refused("RepositoryModelUnload", unload)
        assert (code, "bytes" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_answers_of_calls_are_stored_and_counted(
    serve_rpc: Callable, settings: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    from tests.serving.http.test_recording import stored

    path = tmp_path / "s.sqlite"
    request = pb.ModelInferRequest(model_name="bars")
    add(request, "input", np.full((1, 1, 8, 8), 200), "FP32", [1, 1, 8, 8], raw=True)
    with serve_rpc(settings(models=(f"bars={checkpoint}",), store=path, store_share=0)) as served:
        with Client(served.address) as rpc:
            wait = (("dubio-store", "wait"), ("x-request-id", "r-7"))
            under_way = rpc.begin("ModelInfer", request, metadata=wait)
            under_way.result()
            assert {("dubio-stored", "true"), ("x-request-id", "r-7")} <= set(under_way.trailing_metadata())
            assert stored(path) == [("r-7", 0, "flagged")]
            code, text = rpc.refused("ModelInfer", request, metadata=(("dubio-store", "yes"),))
            assert (code, "to be 'wait', but got 'yes'" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        metrics = httpx.get(f"{served.url}/metrics").text
        activity = httpx.get(f"{served.url}/v1/models/bars/activity").json()
    assert (activity["requests"], activity["rows"]) == ({"200": 1, "400": 1}, 1)
    route = "/inference.GRPCInferenceService/ModelInfer"
    assert f'dubio_requests_total{{model="bars",route="{route}",status="200",version="1"}} 1.0' in metrics
    assert f'dubio_requests_total{{model="bars",route="{route}",status="400",version="1"}} 1.0' in metrics
    assert 'dubio_refused_total{model="bars",reason="invalid_request",version="1"} 1.0' in metrics
    assert 'dubio_flagged_total{model="bars",reason="out_of_range",version="1"} 1.0' in metrics
    assert 'dubio_rows_total{model="bars",version="1"} 1.0' in metrics


def wait_for_calls(served: Any, calls: int) -> None:
    """Until this many calls are being answered."""
    deadline = time.monotonic() + 30
    while served.application.rpc.calls.in_flight != calls:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_answer_that_comes_too_late_is_dropped_from_the_queue(
    serve_rpc: Callable, settings: Callable, gated_checkpoint: Path, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A call that is read late has a deadline that ends late.
    monkeypatch.setattr(calls, "_EARLY_SECONDS", 0.9)
    given = settings(models=(f"row={gated_checkpoint}",), trusted=("gated_networks",), strategy="loop")
    with serve_rpc(given) as served, Client(served.address) as rpc:
        gate.touch()
        try:
            held = [rpc.begin("ModelInfer", ask("row", raw=True)) for _ in range(2)]
            while not gate.with_suffix(".waiting").exists():
                time.sleep(0.01)
            code, _ = rpc.refused("ModelInfer", ask("row", raw=True), timeout=1.0)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            request = ask("row", raw=True)
            request.parameters["timeout"].int64_param = 200_000
            code, text = rpc.refused("ModelInfer", request)
            assert (code, text[:33]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Expected the answer within 0.2 s,")
            # One leaves without a deadline, one long before it, and one whose clock is a little ahead of the service's.
            for allowed, stays in ((None, 0.0), (60.0, 0.0), (3.0, 2.5)):
                wait_for_calls(served, 2)
                cancelled = rpc.begin("ModelInfer", ask("row", raw=True), timeout=allowed)
                wait_for_calls(served, 3)
                time.sleep(stays)
                cancelled.cancel()
            wait_for_calls(served, 2)
        finally:
            gate.unlink()
        assert [len(each.result().outputs) for each in held] == [OUTPUTS, OUTPUTS]
        deadline = time.monotonic() + 10
        while served.application.service.budget.rows and time.monotonic() < deadline:
            time.sleep(0.01)
        assert served.application.service.budget.rows == 0
        [statistics] = rpc.call("ModelStatistics", pb.ModelStatisticsRequest(name="row")).model_stats
        assert statistics.inference_count == 6  # the two that somebody waited for
        metrics = httpx.get(f"{served.url}/metrics").text
    assert 'status="504",version="1"} 3.0' in metrics
    assert 'status="499",version="1"} 2.0' in metrics
