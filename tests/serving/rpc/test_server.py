"""`dubio-serve --grpc-port` in a process of its own: limits on connections, hostile callers, workers and the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from dubio.serving.rpc import open_inference_pb2 as pb
from tests.serving.command import Running
from tests.serving.rpc.client import OUTPUTS, SERVICE, Client, add, ask

MEGABYTE = 2**20
BODY = 8 * MEGABYTE


def address(service: Running) -> str:
    return re.search(r", gRPC on (\S+)", service.log)[1]


@pytest.fixture(scope="module")
def service(command: Any, numbers_checkpoint: Path) -> Iterator[Running]:
    with command.started(str(numbers_checkpoint), "--grpc-port", "0", "--head-seconds", "2") as service:
        yield service


@pytest.fixture
def rpc(service: Running) -> Iterator[Client]:
    with Client(address(service)) as client:
        yield client


def answers(rpc: Client) -> bool:
    return len(rpc.call("ModelInfer", ask("row", raw=True)).outputs) == OUTPUTS


def megabytes(service: Running) -> float:
    return psutil.Process(service.process.pid).memory_info().rss / MEGABYTE


def test_a_message_that_is_too_large_is_refused_before_it_is_held(service: Running, rpc: Client) -> None:
    assert answers(rpc)
    request = pb.ModelInferRequest(model_name="row", raw_input_contents=[bytes(BODY + MEGABYTE)])
    rpc.refused("ModelInfer", request)
    before = megabytes(service)
    for _ in range(20):
        code, text = rpc.refused("ModelInfer", request)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(BODY) in text
    assert megabytes(service) < before + 64
    assert answers(rpc)


def test_a_message_that_swells_is_refused(service: Running, rpc: Client) -> None:
    request = pb.ModelInferRequest(model_name="row", raw_input_contents=[bytes(256 * MEGABYTE)])
    method = rpc.channel.unary_unary(SERVICE + "ModelInfer", request_serializer=lambda each: each)
    before = megabytes(service)
    with pytest.raises(grpc.RpcError) as refusal:
        method(request.SerializeToString(), timeout=30, compression=grpc.Compression.Gzip)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert megabytes(service) < before + 64
    assert answers(rpc)


def test_a_message_may_be_compressed(rpc: Client) -> None:
    method = rpc.channel.unary_unary(
        SERVICE + "ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    assert len(method(ask("row", raw=False), timeout=30, compression=grpc.Compression.Gzip).outputs) == OUTPUTS


def test_messages_of_nothing_but_small_parts_are_refused(service: Running, rpc: Client) -> None:
    """Where each byte becomes many in memory."""
    inputs = pb.ModelInferRequest(model_name="row")
    inputs.inputs.extend([{}] * (3 * MEGABYTE))
    elements = pb.ModelInferRequest(model_name="row")
    add(elements, "input", [], "BYTES", [1, 1], raw=False)
    elements.inputs[0].contents.bytes_contents.extend([b""] * (3 * MEGABYTE))
    parameters = pb.ModelInferRequest(model_name="row")
    for number in range(200_000):
        parameters.parameters[f"p{number}"].bool_param = True
    values = pb.ModelInferRequest(model_name="row")
    values.inputs.add(name="input", datatype="INT64", shape=[7 * MEGABYTE]).contents.int64_contents.extend(
        [1] * (7 * MEGABYTE)
    )
    sent = [each.SerializeToString() for each in (inputs, elements, parameters, values)]
    for body in sent:
        assert rpc.refused("ModelInfer", body)[0] is grpc.StatusCode.INVALID_ARGUMENT
    before = megabytes(service)
    for _ in range(3):
        for body in sent:
            rpc.refused("ModelInfer", body)
    assert megabytes(service) < before * 1.3 + 64
    assert answers(rpc)


@pytest.mark.parametrize(
    "body",
    [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a" * 1000, os.urandom(1000) + b"\xff", b"\x0a\x02\xff\xfe"],
    ids=["no tag", "longer than all", "nested", "random", "no UTF-8"],
)
def test_bytes_that_are_no_message_are_refused(rpc: Client, body: bytes) -> None:
    code, text = rpc.refused("ModelInfer", body)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "ModelInferRequest" in text
    assert answers(rpc)


def test_garbage_on_the_port_and_idle_connections_are_closed(service: Running, rpc: Client) -> None:
    host, port = address(service).split(":")
    kept = [socket.create_connection((host, int(port))) for _ in range(1000)]
    try:
        for number, connection in enumerate(kept[:300]):
            connection.sendall(os.urandom(100) if number % 2 else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answers(rpc)
        for connection in kept:
            connection.settimeout(20)
            try:
                while connection.recv(1000):
                    pass
            except ConnectionError:
                continue
    finally:
        for connection in kept:
            connection.close()
    assert answers(rpc)


def test_a_flood_of_calls_that_are_given_up_leaves_nothing(service: Running, rpc: Client) -> None:
    def flood(rounds: int) -> None:
        for _ in range(rounds):
            calls = [rpc.begin("ModelInfer", ask("row", raw=True)) for _ in range(100)]
            for call in calls:
                call.cancel()

    flood(20)
    before = megabytes(service)
    flood(60)
    assert answers(rpc)
    assert megabytes(service) < before + 64
    waiting = re.compile(r"dubio_waiting_rows (\S+)")
    assert float(waiting.search(httpx.get(f"{service.url}/metrics").text)[1]) == 0


def test_calls_that_have_begun_are_finished_and_no_more(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(tmp_path)}
    arguments = (f"row={gated_checkpoint}", "--trusted", "gated_networks", "--strategy", "loop", "--grpc-port", "0")
    with command.started(*arguments, **environment) as service, Client(address(service)) as rpc:
        gate.touch()
        held = rpc.begin("ModelInfer", ask("row", raw=True))
        while not gate.with_suffix(".waiting").exists():
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Stopping")
        deadline = time.monotonic() + 20
        while True:
            with Client(address(service)) as late:
                code, _ = late.refused("ServerLive", timeout=5)
            if code is grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                break
        assert code is grpc.StatusCode.UNAVAILABLE
        gate.unlink()
        assert len(held.result().outputs) == OUTPUTS
        assert service.finish() == 0


def test_a_call_that_outlasts_the_grace_period_is_cut_off(
    command: Any, gated_checkpoint: Path, gate: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(tmp_path)}
    arguments = (f"row={gated_checkpoint}", "--trusted", "gated_networks", "--strategy", "loop", "--grpc-port", "0")
    with command.started(*arguments, "--grace-seconds", "2", **environment) as service:
        with Client(address(service)) as rpc:
            gate.touch()
            held = rpc.begin("ModelInfer", ask("row", raw=True))
            while not gate.with_suffix(".waiting").exists():
                time.sleep(0.01)
            assert service.finish(signal.SIGTERM) == 1
            with pytest.raises(grpc.RpcError) as refusal:
                held.result()
            assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        gate.unlink()


def test_several_workers_answer_at_one_port(command: Any, numbers_checkpoint: Path) -> None:
    with command.started(str(numbers_checkpoint), "--grpc-port", "0", "--workers", "2") as service:
        where = address(service)
        for _ in range(8):
            with Client(where) as rpc:
                assert answers(rpc)
        metrics = httpx.get(f"{service.url}/metrics").text
        route = f"{SERVICE}ModelInfer"
        assert f'dubio_requests_total{{model="row",route="{route}",status="200",version="1"}} 8.0' in metrics
        code, line = command.refused(str(numbers_checkpoint), "--grpc-port", where.rpartition(":")[2], "--port", "0")
        assert code == 1
        assert "for gRPC: Address already in use; choose another --grpc-port." in line
        assert service.finish(signal.SIGTERM) == 0


def test_without_the_library_the_port_is_refused(command: Any, numbers_checkpoint: Path, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['grpc'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    code, line = command.refused(str(numbers_checkpoint), "--grpc-port", "0", PYTHONPATH=str(tmp_path))
    assert code == 2
    assert line == (
        "dubio-serve: setting grpc_port: it needs grpc, which is not there; pip install 'dubio[grpc]', or leave it out."
    )


def test_the_port_of_http_is_not_free(command: Any, numbers_checkpoint: Path) -> None:
    code, line = command.refused(str(numbers_checkpoint), "--port", "9231", "--grpc-port", "9231")
    assert code == 2
    assert "setting grpc_port: it is the port of HTTP, too; gRPC needs one of its own, but got" in line
