from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

from dubio.serving.rpc import open_inference_pb2 as pb
from tests.serving.rpc.client import OUTPUTS, SERVICE, Client, ask

INFER, ADMIN, METRICS = (f"{scope}-key-for-tests-0123456789" for scope in ("infer", "admin", "metrics"))


@pytest.fixture(scope="module")
def keyed(serve_rpc: Callable, numbers_checkpoint: Path) -> object:
    from dubio.serving.settings import Settings

    keys = f"infer:{INFER} admin:{ADMIN} metrics:{METRICS}"
    with serve_rpc(Settings(models=(str(numbers_checkpoint),), api_keys=keys, torch_threads=1)) as served:
        yield served


def test_keys_open_what_they_open_over_http(keyed) -> None:
    with Client(keyed.address) as nobody:
        assert nobody.call("ServerLive").live
        assert nobody.call("ServerReady").ready
        for name in ("ModelInfer", "ServerMetadata", "ModelReady", "ModelStatistics", "RepositoryIndex"):
            code, text = nobody.refused(name)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert text == httpx.get(f"{keyed.url}/v2").json()["error"]
    for metadata in ({"authorization": f"Bearer {INFER}"}, {"x_api_key": INFER}):
        with Client(keyed.address, **metadata) as caller:
            assert len(caller.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS
            code, text = caller.refused("RepositoryIndex")
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "with the scope admin, but this one has infer only" in text
    with Client(keyed.address, x_api_key="a-wrong-key-0123456789") as stranger:
        code, text = stranger.refused("ServerMetadata")
        assert (code, "is not known" in text) == (grpc.StatusCode.UNAUTHENTICATED, True)
    with Client(keyed.address, x_api_key=ADMIN, authorization=f"Bearer {INFER}") as undecided:
        assert undecided.refused("ServerMetadata")[0] is grpc.StatusCode.UNAUTHENTICATED
    with Client(keyed.address, x_api_key=ADMIN) as administrator:
        assert [model.name for model in administrator.call("RepositoryIndex").models] == ["row"]


def test_a_stranger_is_refused_before_the_message_is_read(keyed) -> None:
    # No message is sent at all: who waits for one would not have answered.
    with Client(keyed.address) as nobody:
        method = nobody.channel.stream_unary(SERVICE + "ModelInfer")
        silent = threading.Event()

        def say_nothing():
            silent.wait(20)
            yield b""

        try:
            with pytest.raises(grpc.RpcError) as refusal:
                method(say_nothing(), timeout=10)
        finally:
            silent.set()
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_administration_is_off_without_a_key_for_it(rpc: Client) -> None:
    for name in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"):
        code, text = rpc.refused(name)
        assert (code, text[:22]) == (grpc.StatusCode.PERMISSION_DENIED, "Administration is off:")


@pytest.mark.parametrize(
    "body",
    [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a" * 1000, b"\x0a\x02\xff\xfe", b"\x0f" * 70_000],
    ids=["no tag", "longer than all", "nested", "no UTF-8", "long"],
)
def test_bytes_that_are_no_message_are_refused(rpc: Client, body: bytes) -> None:
    code, text = rpc.refused("ModelInfer", body)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("Expected a message ModelInferRequest of the Open Inference Protocol, but its ")


def test_a_message_that_is_too_large_is_refused(rpc: Client) -> None:
    code, text = rpc.refused("ModelInfer", b"\x0a\x03row" + bytes(256 * 1024))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(256 * 1024) in text
    assert len(rpc.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS


def test_a_message_that_does_not_come_ends_the_call(
    serve_rpc: Callable, settings: Callable, numbers_checkpoint: Path, rpc: Client
) -> None:
    given = settings(models=(str(numbers_checkpoint),), body_seconds=0.2)
    with serve_rpc(given) as served, Client(served.address) as hasty:
        method = hasty.channel.stream_unary(SERVICE + "ModelInfer")
        silent = threading.Event()

        def say_nothing():
            silent.wait(20)
            yield b""

        with pytest.raises(grpc.RpcError) as refusal:
            method(say_nothing(), timeout=10)
        silent.set()
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refusal.value.details().startswith("Expected the message within 0.2 s,")
    # Here there is time for the end of what is sent, which grpcio sends from a thread of its own.
    with pytest.raises(grpc.RpcError) as refusal:
        rpc.channel.stream_unary(SERVICE + "ModelInfer")(iter(()), timeout=10)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.details() == "Expected one message, but none came; send one."


def test_whoever_has_no_key_takes_no_place_from_those_who_have(
    serve_rpc: Callable, settings: Callable, numbers_checkpoint: Path
) -> None:
    given = settings(models=(str(numbers_checkpoint),), grpc_max_calls=2)
    silent = threading.Event()

    def say_nothing():
        silent.wait(20)
        yield b""

    with serve_rpc(given) as served, Client(served.address) as rpc:
        strangers = [Client(served.address) for _ in range(3)]
        try:
            silence = [each.channel.stream_unary(SERVICE + "ServerLive").future(say_nothing()) for each in strangers]
            while served.application.rpc.calls.in_flight < len(strangers):
                time.sleep(0.01)
            assert len(rpc.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS
            with pytest.raises(grpc.RpcError) as refusal:  # nor do they wait for long
                silence[0].result()
            assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert refusal.value.details().startswith("Expected the message within 2 s,")
        finally:
            silent.set()
            for each in strangers:
                each.channel.close()


def test_beyond_the_most_calls_one_is_refused_with_when_to_come_back(
    serve_rpc: Callable, settings: Callable, gated_checkpoint: Path, gate: Path
) -> None:
    given = settings(
        models=(f"row={gated_checkpoint}",), trusted=("gated_networks",), strategy="loop", grpc_max_calls=2
    )
    with serve_rpc(given) as served, Client(served.address) as rpc:
        gate.touch()
        try:
            held = [rpc.begin("ModelInfer", ask("row", raw=True)) for _ in range(2)]
            while served.application.rpc.calls.in_flight < 2:
                time.sleep(0.01)
            # A connection of its own: each has as many calls at a time as there may be, and the others wait.
            with Client(served.address) as another:
                further = another.begin("ModelInfer", ask("row", raw=True))
                with pytest.raises(grpc.RpcError):
                    further.result()
                assert further.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert further.details().startswith("Expected at most 2 calls at a time, but more came;")
                assert {("retry-after", "1"), ("grpc-retry-pushback-ms", "1000")} <= set(further.trailing_metadata())
        finally:
            gate.unlink()
        assert [len(each.result().outputs) for each in held] == [OUTPUTS, OUTPUTS]


def test_full_queues_are_unavailable_with_when_to_come_back(
    serve_rpc: Callable, settings: Callable, gated_checkpoint: Path, gate: Path
) -> None:
    given = settings(
        models=(f"row={gated_checkpoint}",), trusted=("gated_networks",), strategy="loop", max_queue_rows=4
    )
    with serve_rpc(given) as served, Client(served.address) as rpc:
        gate.touch()
        try:
            held = rpc.begin("ModelInfer", ask("row", raw=True))
            while not gate.with_suffix(".waiting").exists():
                time.sleep(0.01)
            further = rpc.begin("ModelInfer", ask("row", raw=True))
            with pytest.raises(grpc.RpcError):
                further.result()
            assert further.code() is grpc.StatusCode.UNAVAILABLE
            assert further.details().startswith("Expected at most 4 rows and")
            assert "retry-after" in dict(further.trailing_metadata())
        finally:
            gate.unlink()
        assert len(held.result().outputs) == OUTPUTS


def test_an_error_of_ours_is_logged_and_not_sent(
    serve_rpc: Callable, settings: Callable, numbers_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_rpc(settings(models=(str(numbers_checkpoint),))) as served, Client(served.address) as rpc:
        served.application.service.budget.max_rows = None
        served.application.service.budget.rows = 1
        under_way = rpc.begin("ModelInfer", ask("row", raw=True), metadata=(("x-request-id", "r-9"),))
        with pytest.raises(grpc.RpcError):
            under_way.result()
        assert under_way.code() is grpc.StatusCode.INTERNAL
        assert under_way.details() == "The service could not answer. Its log says why, under request id r-9."
        assert ("x-request-id", "r-9") in under_way.trailing_metadata()
        served.application.service.budget.rows = 0
    assert "TypeError" in caplog.text


def test_the_access_log_has_a_line_for_every_call(
    serve_rpc: Callable, settings: Callable, numbers_checkpoint: Path, capfd: pytest.CaptureFixture
) -> None:
    given = settings(models=(str(numbers_checkpoint),), access_log=True)
    with serve_rpc(given) as served, Client(served.address) as rpc:
        rpc.call("ModelInfer", ask("row", raw=True), metadata=(("x-request-id", "r-1"),))
        rpc.refused("ModelMetadata", pb.ModelMetadataRequest(name="nothing"))
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    path = f"{SERVICE}ModelInfer"
    assert lines[0] | {"time": "", "duration_ms": 0} == {
        "time": "",
        "request_id": "r-1",
        "client": "127.0.0.1",
        "method": "gRPC",
        "route": path,
        "path": path,
        "status": 200,
        "code": "OK",
        "duration_ms": 0,
        "model": "row",
        "version": "1",
        "rows": 3,
        "refused": None,
    }
    assert [lines[1][name] for name in ("status", "code", "refused")] == [404, "NOT_FOUND", "unknown_model"]
