"""Hostile callers of `dubio-serve --grpc-port`: what they send is refused, and leaves nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from dubio.serving.rpc import open_inference_pb2 as pb
from tests.serving.command import Running
from tests.serving.rpc.client import OUTPUTS, SERVICE, Client, address, ask

pytestmark = pytest.mark.slow  # memory is measured over many rounds

MEGABYTE = 2**20
BODY = 8 * MEGABYTE


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
    elements = pb.ModelInferRequest(model_name="row")
    elements.inputs.add(name="input", datatype="BYTES", shape=[1, 1])
    elements.inputs[0].contents.MergeFromString(b"\x42\x00" * (3 * MEGABYTE))
    parameters = pb.ModelInferRequest(model_name="row")
    for number in range(200_000):
        parameters.parameters[f"p{number}"].bool_param = True
    values = pb.ModelInferRequest(model_name="row")
    values.inputs.add(name="input", datatype="INT64", shape=[7 * MEGABYTE])
    values.inputs[0].contents.int64_contents.extend([1] * (7 * MEGABYTE))
    inputs = b"\x0a\x03row" + b"\x2a\x00" * (3 * MEGABYTE)
    sent = [inputs, *(each.SerializeToString() for each in (elements, parameters, values))]
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
        with Client(address(service)) as flooding:  # whose own connection may be refused further calls for it
            for _ in range(rounds):
                calls = [flooding.begin("ModelInfer", ask("row", raw=True)) for _ in range(100)]
                for call in calls:
                    call.cancel()

    flood(20)
    assert answers(rpc)
    before = megabytes(service)
    for _ in range(6):
        flood(10)
    assert answers(rpc)
    assert megabytes(service) < before + 64
    assert "\ndubio_waiting_rows 0.0\n" in httpx.get(f"{service.url}/metrics").text
