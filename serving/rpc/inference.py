"""The calls of the Open Inference Protocol: other messages around what `/v2` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from dubio.serving.errors import NotReady, UnknownModel, UnsupportedCall
from dubio.serving.http.api_keys import Scope
from dubio.serving.http.auth import OPEN
from dubio.serving.http.recording import ASK, Recorder
from dubio.serving.lifecycle import Lifecycle
from dubio.serving.repository.registry import ServedModel
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.rpc.calls import Call, Calls, parse
from dubio.serving.rpc.decode import decode_request, read_parameters
from dubio.serving.rpc.encode import encode_response
from dubio.serving.service import PredictionService
from dubio.serving.settings import Settings
from dubio.serving.v2 import schema
from dubio.serving.v2.control import RepositoryControl
from dubio.serving.v2.exchange import LONG_BYTES, Exchange, takes_long
from dubio.serving.v2.metadata import configure, describe_model, describe_server
from dubio.serving.v2.status import look_up, report, require_ready
from dubio.serving.wire.effort import Effort, Readers
from dubio.serving.wire.envelope import validate

SERVICE = "inference.GRPCInferenceService"
_SHARED_MEMORY = "shared memory is not supported; send the tensor in the request."
_UNSUPPORTED = {
    "ModelStreamInfer": "every request has one answer, in one piece; call ModelInfer.",
    **{
        f"{kind}SharedMemory{verb}": _SHARED_MEMORY
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register", "Unregister")
    },
    "TraceSetting": "traces are set up where the service is started (DUBIO_TRACING).",
    "LogSettings": "the log is set up where the service is started (DUBIO_LOG_LEVEL).",
}


@dataclass(frozen=True)
class InferenceCalls:
    """Makes what gRPC calls.

    Attributes:
        service: Answers.
        settings: Of the operator.
        lifecycle: Whether the process is stopping.
        readers: Read what is long.
        recorder: Keeps answers.
        version: Of the service.
        loads_on_request: Tells whether models are loaded when an administrator asks.
    """

    service: PredictionService
    settings: Settings
    lifecycle: Lifecycle
    readers: Readers
    recorder: Recorder
    version: str
    loads_on_request: Callable[[], bool]

    def build(self, calls: Calls) -> grpc.GenericRpcHandler:
        """The calls, each observed by `calls`."""
        control = RepositoryControl(self.service.repository, self.settings)
        exchange = Exchange(self.service, self.settings, self.readers)
        handlers: dict[str, grpc.RpcMethodHandler] = {}

        def add(
            name: str, needed: Scope | None, kind: type[Message], answer: Callable[[Any, Call], Awaitable[Message]]
        ) -> None:
            async def respond(body: bytes, call: Call) -> bytes:
                written: bytes = (await answer(parse(kind, body), call)).SerializeToString()
                return written

            handlers[name] = calls.handler(f"/{SERVICE}/{name}", needed, respond)

        async def infer(body: bytes, call: Call) -> bytes:
            return await self._infer(exchange, body, call)

        async def index(message: pb.RepositoryIndexRequest, call: Call) -> Message:
            states = await control.index(only_ready=message.ready)
            return ParseDict({"models": [asdict(state) for state in states]}, pb.RepositoryIndexResponse())

        async def load(message: pb.RepositoryModelLoadRequest, call: Call) -> Message:
            validate(_parameters(message), schema.LoadRequest)
            name = _model_name(message)
            await control.load(name)
            return pb.RepositoryModelLoadResponse(model_name=name, is_loaded=True)

        async def unload(message: pb.RepositoryModelUnloadRequest, call: Call) -> Message:
            validate(_parameters(message), schema.UnloadRequest)
            name = _model_name(message)
            await control.unload(name)
            return pb.RepositoryModelUnloadResponse(model_name=name, is_unloaded=True)

        handlers["ModelInfer"] = calls.handler(f"/{SERVICE}/ModelInfer", Scope.INFER, infer, predicts=True)
        add("ServerLive", OPEN, pb.ServerLiveRequest, self._is_live)
        add("ServerReady", OPEN, pb.ServerReadyRequest, self._is_ready)
        add("ModelReady", Scope.INFER, pb.ModelReadyRequest, self._is_model_ready)
        add("ServerMetadata", Scope.INFER, pb.ServerMetadataRequest, self._describe_server)
        add("ModelMetadata", Scope.INFER, pb.ModelMetadataRequest, self._describe_model)
        add("ModelConfig", Scope.INFER, pb.ModelConfigRequest, self._configure)
        add("ModelStatistics", Scope.INFER, pb.ModelStatisticsRequest, self._count)
        add("RepositoryIndex", Scope.ADMIN, pb.RepositoryIndexRequest, index)
        add("RepositoryModelLoad", Scope.ADMIN, pb.RepositoryModelLoadRequest, load)
        add("RepositoryModelUnload", Scope.ADMIN, pb.RepositoryModelUnloadRequest, unload)
        for name, why in _UNSUPPORTED.items():
            handlers[name] = calls.handler(f"/{SERVICE}/{name}", Scope.INFER, partial(_refuse, f"{name}: {why}"))
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _infer(self, exchange: Exchange, body: bytes, call: Call) -> bytes:
        message = await self._parse(body)
        model = self._find(message.model_name, message.model_version, call)
        recording = self.recorder.begin(call.header(ASK), call.request_id)
        with self.service.telemetry.timer(model) as timer:
            timer.lap()
            long = takes_long(body, model.facts.input, binary=False)
            decoded = await exchange.decode(model, partial(decode_request, message), long=long)
            call.rows = len(decoded.inputs)
            timer.lap()
            prediction = await exchange.predict(model, decoded, recording, call.seconds)
            timer.lap()
            recording.keep(model, decoded.inputs, prediction, decoded.instance)
            raw = bool(message.raw_input_contents)
            answer = await exchange.encode(
                decoded, lambda: encode_response(prediction, request=decoded, model=model, raw=raw)
            )
            call.metadata += [(name.lower(), value) for name, value in (await recording.headers()).items()]
            return answer

    async def _parse(self, body: bytes) -> pb.ModelInferRequest:
        if len(body) <= LONG_BYTES:
            return parse(pb.ModelInferRequest, body)
        effort = Effort(self.settings.timeout_seconds)
        return await self.readers.run(lambda: parse(pb.ModelInferRequest, body), effort)

    def _find(self, name: str, version: str, call: Call) -> ServedModel:
        """The model that a call names, by which it is counted."""
        model = look_up(self.service.repository, name, version or None)
        call.model, call.version = model.name, model.version
        return model

    async def _is_live(self, message: pb.ServerLiveRequest, call: Call) -> Message:
        return pb.ServerLiveResponse(live=_holds(self.service.require_life))

    async def _is_ready(self, message: pb.ServerReadyRequest, call: Call) -> Message:
        return pb.ServerReadyResponse(ready=_holds(lambda: require_ready(self.service, self.lifecycle)))

    async def _is_model_ready(self, message: pb.ModelReadyRequest, call: Call) -> Message:
        def check() -> None:
            self.service.require_progress(self._find(message.name, message.version, call))

        return pb.ModelReadyResponse(ready=_holds(check))

    async def _describe_server(self, message: pb.ServerMetadataRequest, call: Call) -> Message:
        described = describe_server(self.version, loads_on_request=self.loads_on_request())
        return ParseDict(described, pb.ServerMetadataResponse())

    async def _describe_model(self, message: pb.ModelMetadataRequest, call: Call) -> Message:
        model = self._find(message.name, message.version, call)
        described = describe_model(model, self.service.repository.versions(model.name))
        return ParseDict(described, pb.ModelMetadataResponse())

    async def _configure(self, message: pb.ModelConfigRequest, call: Call) -> Message:
        model = self._find(message.name, message.version, call)
        return ParseDict({"config": configure(model, self.settings.max_rows)}, pb.ModelConfigResponse())

    async def _count(self, message: pb.ModelStatisticsRequest, call: Call) -> Message:
        models: Iterable[ServedModel] = self.service.repository.all_versions()
        if message.name:
            model = self._find(message.name, message.version, call)
            models = [model] if message.version else self.service.repository.all_versions(model.name)
        # What is always empty is left out.
        return ParseDict(report(self.service, models), pb.ModelStatisticsResponse(), ignore_unknown_fields=True)


def _holds(check: Callable[[], None]) -> bool:
    try:
        check()
    except (NotReady, UnknownModel):
        return False
    return True


def _model_name(message: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model's name in either of the two dialects."""
    return message.model_name or message.repository_name


def _parameters(message: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> dict[str, Any]:
    return {"parameters": read_parameters(message.parameters)} if message.parameters else {}


async def _refuse(why: str, body: bytes, call: Call) -> bytes:
    raise UnsupportedCall(f"Expected a call that this service answers, but got {why}")
