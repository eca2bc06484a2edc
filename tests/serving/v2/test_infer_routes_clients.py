"""An unmodified `tritonclient.http`, plain and asynchronous, through a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubio.models import Predictor, Work

triton = import_module("tritonclient.http")
triton_aio = import_module("tritonclient.http.aio")
Refused = import_module("tritonclient.utils").InferenceServerException

CLASSES = [f"class-{i}" for i in range(4)]
NUMBERS = ["probabilities", "mc_mean", "mc_std", "predictive_entropy", "expected_entropy", "mutual_information"]
ANSWERS = ["label", *NUMBERS[:3], "mc_samples", *NUMBERS[3:]]
EVERYTHING = [*ANSWERS, "ood_p_value", "ood_flag", "accepted", "label_set"]


@pytest.fixture
def host(url: str) -> str:
    return url.removeprefix("http://")


@pytest.fixture
def server(host: str) -> Iterator[Any]:
    with triton.InferenceServerClient(host) as server:
        yield server


def tensor(rows: np.ndarray, *, binary: bool = True, datatype: str = "FP32") -> Any:
    built = triton.InferInput("input", list(rows.shape), datatype)
    built.set_data_from_numpy(rows, binary_data=binary)
    return built


A_RANK = 1.001 / 301  # of the 300 calibration rows of `bars`


def check(result: Any, expected: Any) -> None:
    """All outputs are the predictor's own."""
    for name in NUMBERS:
        served = result.as_numpy(name)
        assert served.dtype == np.float32
        np.testing.assert_allclose(served, getattr(expected, name), atol=1e-5)
    assert result.as_numpy("mc_std").max() > 0
    assert result.as_numpy("mc_samples").dtype == np.int32
    np.testing.assert_array_equal(result.as_numpy("mc_samples"), expected.mc_samples)
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == [CLASSES[index] for index in expected.label]
    # A rank, since what shares a batch with a row rounds its members' answers otherwise.
    np.testing.assert_allclose(result.as_numpy("ood_p_value"), expected.p_value, rtol=0, atol=A_RANK)
    assert result.as_numpy("ood_p_value").dtype == np.float64
    np.testing.assert_array_equal(result.as_numpy("ood_flag"), expected.flagged)
    assert result.as_numpy("ood_flag").dtype == np.bool_
    for name in ("accepted", "label_set"):
        assert result.as_numpy(name).dtype == np.bool_
        np.testing.assert_array_equal(result.as_numpy(name), getattr(expected, name))


def test_as_many_members_as_it_takes(server: Any, predictor: Predictor, bars: np.ndarray) -> None:
    rows = np.concatenate([bars[:20], 16 - bars[:5], bars[:5] * 3])
    asked = triton.InferInput("input", list(rows.shape), "FP32")
    asked.set_data_from_numpy(rows)
    outputs = [triton.InferRequestedOutput(name) for name in ("mc_samples", "mc_mean", "ood_flag")]
    result = server.infer("bars", [asked], outputs=outputs, parameters={"samples": "auto"})
    expected = predictor.predict(rows, samples="auto")
    assert result.as_numpy("mc_samples").dtype == np.int32
    np.testing.assert_array_equal(result.as_numpy("mc_samples"), expected.samples)
    np.testing.assert_array_equal(result.as_numpy("ood_flag"), expected.flagged)
    np.testing.assert_allclose(result.as_numpy("mc_mean"), expected.mc_mean, atol=1e-5)
    assert result.get_response()["parameters"]["samples"] == "auto"


def test_health_and_metadata(server: Any) -> None:
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready("bars")
    assert server.is_model_ready("bars", "1")
    assert not server.is_model_ready("bars", "2")
    assert not server.is_model_ready("nothing")
    about = server.get_server_metadata()
    assert about["name"] == "dubio"
    assert {"classification", "binary_tensor_data", "model_configuration", "statistics"} <= set(about["extensions"])


@pytest.mark.parametrize("version", ["", "1"])
def test_model_metadata_and_config(server: Any, version: str) -> None:
    model = server.get_model_metadata("bars", version)
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert [(output["name"], output["datatype"]) for output in model["outputs"]] == [
        ("label", "BYTES"),
        *[(name, "FP32") for name in NUMBERS[:3]],
        ("mc_samples", "INT32"),
        *[(name, "FP32") for name in NUMBERS[3:]],
        ("ood_p_value", "FP64"),
        ("ood_flag", "BOOL"),
        ("accepted", "BOOL"),
        ("label_set", "BOOL"),
    ]
    assert [output["shape"] for output in model["outputs"]] == [[-1], *[[-1, 4]] * 3, *[[-1]] * 7, [-1, 4]]
    config = server.get_model_config("bars", version)
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 8, 8]}]
    assert [output["name"] for output in config["output"]] == [output["name"] for output in model["outputs"]]
    assert config["output"][0]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize("sent", ["binary", "json"])
@pytest.mark.parametrize("received", ["binary", "json", "mixed", "left open"])
def test_every_way_of_sending_gives_the_predictors_numbers(
    server: Any, predictor: Predictor, bars: np.ndarray, sent: str, received: str
) -> None:
    outputs = None
    if received != "left open":
        binary = {"binary": lambda i: True, "json": lambda i: False, "mixed": lambda i: i % 2 == 0}[received]
        outputs = [triton.InferRequestedOutput(name, binary_data=binary(i)) for i, name in enumerate(EVERYTHING)]
    result = server.infer("bars", [tensor(bars[:7], binary=sent == "binary")], outputs=outputs, request_id="r-7")
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r-7", "bars", "1")
    assert [output["name"] for output in answer["outputs"]] == EVERYTHING
    expected = predictor.predict(bars[:7])
    promises = {"accepted_risk": 0.02, "accepted_confidence": 0.95, "label_set_coverage": 0.95}
    assert answer["parameters"] == {"samples": 16, "ood_level": expected.level, **promises}
    check(result, expected)


@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
@pytest.mark.parametrize("received", ["gzip", "deflate", None])
def test_compressed_both_ways(
    server: Any, predictor: Predictor, bars: np.ndarray, sent: str | None, received: str | None
) -> None:
    result = server.infer(
        "bars",
        [tensor(bars[:40])],
        request_compression_algorithm=sent,
        response_compression_algorithm=received,
    )
    check(result, predictor.predict(bars[:40]))


def test_without_outputs_all_that_the_metadata_lists_are_answered(server: Any, bars: np.ndarray) -> None:
    listed = server.get_model_metadata("bars")["outputs"]
    answered = server.infer("bars", [tensor(bars[:3])]).get_response()["outputs"]
    assert [(output["name"], output["datatype"], [-1, *output["shape"][1:]]) for output in answered] == [
        (output["name"], output["datatype"], output["shape"]) for output in listed
    ]


@pytest.mark.parametrize("datatype", ["FP64", "FP16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64", "UINT64"])
def test_other_numbers_are_converted(server: Any, predictor: Predictor, bars: np.ndarray, datatype: str) -> None:
    kind = import_module("tritonclient.utils").triton_to_np_dtype(datatype)
    sent = bars[:3].astype(kind)  # pixels are whole numbers up to 16, which all of these have
    check(server.infer("bars", [tensor(sent, datatype=datatype)]), predictor.predict(bars[:3]))
    if datatype != "FP16":
        check(server.infer("bars", [tensor(sent, datatype=datatype, binary=False)]), predictor.predict(bars[:3]))


def test_only_what_is_asked_for_comes_back(server: Any, predictor: Predictor, bars: np.ndarray) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("mc_std", "label")]
    result = server.infer("bars", [tensor(bars[:2])], outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["mc_std", "label"]
    assert result.as_numpy("mc_mean") is None
    np.testing.assert_allclose(result.as_numpy("mc_std"), predictor.predict(bars[:2], work=Work.MC).mc_std, atol=1e-5)


def test_samples_are_those_of_the_predictor(server: Any, predictor: Predictor, bars: np.ndarray) -> None:
    result = server.infer("bars", [tensor(bars[:2])], parameters={"samples": 4})
    expected = predictor.predict(bars[:2], samples=4)
    np.testing.assert_allclose(result.as_numpy("mc_std"), expected.mc_std, atol=1e-5)
    answer = result.get_response()
    reasons = {f"{name}_reason": "not_calibrated_for_these_samples" for name in ("ood", "accepted", "label_set")}
    assert answer["parameters"] == {"samples": 4, **reasons}
    assert [output["name"] for output in answer["outputs"]] == ANSWERS
    wanted = [triton.InferRequestedOutput("ood_flag")]
    with pytest.raises(Refused, match="none for 'ood_flag', for it is not calibrated for so many members") as refused:
        server.infer("bars", [tensor(bars[:2])], outputs=wanted, parameters={"samples": 4})
    assert refused.value.status() == "400"


def test_the_largest_classes(server: Any, predictor: Predictor, bars: np.ndarray) -> None:
    outputs = [
        triton.InferRequestedOutput("probabilities", class_count=2),
        triton.InferRequestedOutput("mc_mean", class_count=100, binary_data=False),
    ]
    result = server.infer("bars", [tensor(bars[:5])], outputs=outputs)
    expected = predictor.predict(bars[:5])
    best = result.as_numpy("probabilities")
    assert best.shape == (5, 2)
    for row, texts in enumerate(best):
        for place, text in enumerate(texts):
            value, index, label = text.decode().split(":")
            assert int(index) == np.argsort(-expected.probabilities[row])[place]
            assert label == CLASSES[int(index)]
            assert abs(float(value) - expected.probabilities[row, int(index)]) < 1e-5
    assert result.as_numpy("mc_mean").shape == (5, 4)


def test_a_timeout_is_a_deadline(
    serve: Callable, settings: Callable, gated_checkpoint: Path, gate: Path, bars: np.ndarray
) -> None:
    rows = np.zeros((1, 5), np.float32)
    with ExitStack() as stack:
        base = stack.enter_context(serve(settings(models=(str(gated_checkpoint),), trusted=("gated_networks",))))
        server = stack.enter_context(triton.InferenceServerClient(base.removeprefix("http://")))
        gate.touch()
        with pytest.raises(Refused, match=r"answer within 0\.05 s") as refused:
            server.infer("gated", [tensor(rows)], timeout=50_000)
        assert refused.value.status() == "504"
        gate.unlink()
        assert server.infer("gated", [tensor(rows)], timeout=30_000_000).as_numpy("label").shape == (1,)


def test_errors_are_the_clients_own(server: Any, bars: np.ndarray) -> None:
    rows = tensor(bars[:1])
    cases: list[tuple[str, Callable[[], object]]] = [
        ("404 Request for unknown model: 'barz' is not found", lambda: server.infer("barz", [rows])),
        ("404 Request for unknown model: 'bars' version 9 is not found", lambda: server.infer("bars", [rows], "9")),
        ("404 Request for unknown model: 'barz'", lambda: server.get_model_metadata("barz")),
        ("404 Request for unknown model: 'barz'", lambda: server.get_model_config("barz")),
        ("404 Request for unknown model: 'barz'", lambda: server.get_inference_statistics("barz")),
        ("400 unexpected shape for input 'input' for model 'bars'. Expected [-1, 1, 8, 8], got [1, 64]",
         lambda: server.infer("bars", [tensor(bars[:1].reshape(1, 64))])),
        ("413 inference request batch-size must be <= 64 for 'bars'",
         lambda: server.infer("bars", [tensor(np.zeros((65, 1, 8, 8), np.float32))])),
        ("400 unexpected inference output 'nothing' for model 'bars'",
         lambda: server.infer("bars", [rows], outputs=[triton.InferRequestedOutput("nothing")])),
        ("400 output 'label' already requested",
         lambda: server.infer("bars", [rows], outputs=[triton.InferRequestedOutput("label")] * 2)),
        ("400 Expected no unknown key in `parameters`, but got `sample`; did you mean",
         lambda: server.infer("bars", [rows], parameters={"sample": 3})),
        ("400 inference input 'input' data-type is 'BYTES', but model 'bars' expects 'FP32'",
         lambda: server.infer("bars", [tensor(np.array([[b"a"]], object), datatype="BYTES")])),
        ("400 inference input 'input' data-type is 'BOOL', but model 'bars' expects 'FP32'",
         lambda: server.infer("bars", [tensor(bars[:1] > 3, datatype="BOOL")])),
        ("400 Expected the numbers of input 'input' to be finite",
         lambda: server.infer("bars", [tensor(np.full((2, 1, 8, 8), np.nan, np.float32))])),
    ]  # fmt: skip
    for complaint, call in cases:
        with pytest.raises(Refused) as refused:
            call()
        assert f"{refused.value.status()} {refused.value.message()}".startswith(complaint)
        assert server.infer("bars", [rows]).as_numpy("label").shape == (1,)


def test_statistics_count(serve: Callable, settings: Callable, checkpoint: Path, bars: np.ndarray) -> None:
    with ExitStack() as stack:
        base = stack.enter_context(serve(settings(models=(str(checkpoint),))))
        server = stack.enter_context(triton.InferenceServerClient(base.removeprefix("http://")))
        [before] = server.get_inference_statistics()["model_stats"]
        assert (before["name"], before["version"], before["inference_count"]) == ("bars", "1", 0)
        for rows in (3, 3, 5):
            server.infer("bars", [tensor(bars[:rows])])
        with pytest.raises(Refused):
            server.infer("bars", [tensor(bars[:1, 0])])
        [after] = server.get_inference_statistics("bars")["model_stats"]
        assert server.get_inference_statistics("bars", "1")["model_stats"] == [after]
    assert (after["inference_count"], after["execution_count"]) == (11, 3)
    assert after["last_inference"] > 1.7e12
    stats = after["inference_stats"]
    assert {name: stats[name]["count"] for name in stats} == {
        "success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3,
        "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in after["batch_stats"]] == [
        (3, 2),
        (5, 1),
    ]


def test_deferred_requests_of_the_client(server: Any, predictor: Predictor, bars: np.ndarray) -> None:
    deferred = [server.async_infer("bars", [tensor(bars[i : i + 2])], request_id=str(i)) for i in range(8)]
    for i, one in enumerate(deferred):
        result = one.get_result()
        assert result.get_response()["id"] == str(i)
        check(result, predictor.predict(bars[i : i + 2]))


def test_the_asynchronous_client(host: str, predictor: Predictor, bars: np.ndarray) -> None:
    # It advertises gzip everywhere and undoes it for infer alone.
    async def drive() -> None:
        async with triton_aio.InferenceServerClient(host) as server:
            assert await server.is_server_live()
            assert await server.is_server_ready()
            assert await server.is_model_ready("bars")
            assert (await server.get_server_metadata())["name"] == "dubio"
            assert len((await server.get_model_metadata("bars"))["outputs"]) == len(EVERYTHING)
            assert (await server.get_model_config("bars"))["max_batch_size"] == 64
            assert (await server.get_inference_statistics())["model_stats"]
            answers = await asyncio.gather(
                *[server.infer("bars", [tensor(bars[i : i + 30])], request_id=str(i)) for i in range(6)],
                server.infer("bars", [tensor(bars[:9])], request_compression_algorithm="gzip"),
                server.infer("bars", [tensor(bars[:9])], response_compression_algorithm="deflate"),
            )
            for i, answer in enumerate(answers[:6]):
                assert answer.get_response()["id"] == str(i)
                check(answer, predictor.predict(bars[i : i + 30]))
            for answer in answers[6:]:
                check(answer, predictor.predict(bars[:9]))
            with pytest.raises(Refused, match="Request for unknown model: 'barz'"):
                await server.infer("barz", [tensor(bars[:1])])

    asyncio.run(drive())


def test_large_answers_come_compressed_only_to_those_who_ask(client: httpx.Client, bars: np.ndarray) -> None:
    body = {"inputs": [{"name": "input", "shape": [40, 1, 8, 8], "datatype": "FP32", "data": bars[:40].tolist()}]}
    plain = client.post("/v2/models/bars/infer", json=body, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.post("/v2/models/bars/infer", json=body, headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.json().keys() == plain.json().keys()
    for path in ("/v2", "/v2/models/bars", "/v2/models/bars/config", "/v2/models/stats", "/v2/models/none"):
        assert "content-encoding" not in client.get(path, headers={"Accept-Encoding": "gzip"}).headers
