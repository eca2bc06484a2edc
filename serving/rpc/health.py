"""gRPC's own health service, `grpc.health.v1.Health`, which Kubernetes and load balancers ask without a key."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2

from dubio.serving.errors import NotReady, UnknownService, UnsupportedCall
from dubio.serving.http.auth import OPEN
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.rpc.calls import Call, Calls, parse
from dubio.serving.rpc.inference import SERVICE
from dubio.serving.service import PredictionService
from dubio.serving.v2.status import require_ready

HEALTH = "grpc.health.v1.Health"
_SERVICES = ("", SERVICE)


def build_health(service: PredictionService, lifecycle: Lifecycle, calls: Calls) -> grpc.GenericRpcHandler:
    """Its calls, observed by `calls`.

    Args:
        service: Whether models are loaded, and answer.
        lifecycle: Whether the process is stopping.
        calls: Around them.
    """

    async def check(body: bytes, call: Call) -> bytes:
        name = parse(health_pb2.HealthCheckRequest, body).service
        if name not in _SERVICES:
            raise UnknownService(
                f"Expected `service` to be empty or {SERVICE!r}, but got {name[:100]!r}; ask for those."
            )
        status = health_pb2.HealthCheckResponse.SERVING
        try:
            require_ready(service, lifecycle)
        except NotReady:
            status = health_pb2.HealthCheckResponse.NOT_SERVING
        answer: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
        return answer

    async def watch(body: bytes, call: Call) -> bytes:
        raise UnsupportedCall("Expected a call that this service answers, but got Watch; call Check now and then.")

    answers = {"Check": check, "Watch": watch}
    return grpc.method_handlers_generic_handler(
        HEALTH, {name: calls.handler(f"/{HEALTH}/{name}", OPEN, answer) for name, answer in answers.items()}
    )
