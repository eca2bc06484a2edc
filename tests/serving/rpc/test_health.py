from __future__ import annotations

from importlib import import_module

import grpc
import pytest

from tests.serving.rpc.client import Client

pb = import_module("grpc_health.v1.health_pb2")
stubs = import_module("grpc_health.v1.health_pb2_grpc")
SERVICE = "inference.GRPCInferenceService"


@pytest.mark.parametrize("service", ["", SERVICE])
def test_a_service_that_is_ready_serves(rpc: Client, service: str) -> None:
    answer = stubs.HealthStub(rpc.channel).Check(pb.HealthCheckRequest(service=service), timeout=30)
    assert answer.status == pb.HealthCheckResponse.SERVING


def test_an_unknown_service_is_not_found(rpc: Client) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        stubs.HealthStub(rpc.channel).Check(pb.HealthCheckRequest(service="row"), timeout=30)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


def test_watching_is_not_offered(rpc: Client) -> None:
    # The protocol's word to clients that they are not to take the service for ill.
    with pytest.raises(grpc.RpcError) as refusal:
        next(stubs.HealthStub(rpc.channel).Watch(pb.HealthCheckRequest(), timeout=30))
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_service_that_stops_does_not_serve(served, rpc: Client) -> None:
    service = served.application.service
    service.executor.failure = "The device of this process failed"
    try:
        answer = stubs.HealthStub(rpc.channel).Check(pb.HealthCheckRequest(), timeout=30)
        assert answer.status == pb.HealthCheckResponse.NOT_SERVING
        assert not rpc.call("ServerReady").ready
        assert not rpc.call("ServerLive").live
    finally:
        service.executor.failure = None
