"""A client of the calls, in our own messages: those of real clients cannot be loaded beside each other."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import numpy as np
import pytest

from dubio.serving.app import Application
from dubio.serving.rpc import open_inference_pb2 as pb
from dubio.serving.rpc.decode import FIELDS
from dubio.serving.v2.tensor_data import NUMBERS
from tests.serving.command import Running
from tests.serving.kinds import FILES, ROWS, TEXTS
from tests.serving.kinds import NUMBERS as ROWS_OF_NUMBERS

OUTPUTS = 11
"""Of the models of `kinds`, which have learned nothing and so accept nothing."""
SERVICE = "/inference.GRPCInferenceService/"
_KINDS = {"BOOL": np.dtype(np.bool_), **NUMBERS}


class Served(NamedTuple):
    """Where a service is."""

    url: str
    address: str
    application: Application


class Client:
    """Calls the methods of a service at an address."""

    def __init__(self, address: str, **metadata: str) -> None:
        """Connect, by a connection of its own, with metadata for every call."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options)
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())

    def __enter__(self) -> Self:
        """Nothing is to be done."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Disconnect."""
        self.channel.close()

    def call(self, name: str, message: Any = None, **given: Any) -> Any:
        """The answer of a method to a message of its own."""
        return self.begin(name, message, **given).result()

    def begin(self, name: str, message: Any = None, *, metadata: tuple = (), timeout: float | None = 30) -> Any:
        """A call that is under way."""
        request = getattr(pb, f"{name}Request")() if message is None else message
        method = self.channel.unary_unary(
            SERVICE + name,
            request_serializer=lambda each: each if isinstance(each, bytes) else each.SerializeToString(),
            response_deserializer=getattr(pb, f"{name}Response").FromString,
        )
        return method.future(request, metadata=(*self._metadata, *metadata), timeout=timeout)

    def refused(self, name: str, message: Any = None, **given: Any) -> tuple[grpc.StatusCode, str]:
        """Status and text of a call that is refused."""
        with pytest.raises(grpc.RpcError) as refusal:
            self.call(name, message, **given)
        return refusal.value.code(), refusal.value.details()


def address(service: Running) -> str:
    """Where a command listens for gRPC, by its start-up line."""
    found = re.search(r" and on (\S+) for gRPC", service.log)
    assert found is not None
    return found[1]


def add(request: pb.ModelInferRequest, name: str, values: Any, datatype: str, shape: list[int], *, raw: bool) -> None:
    """Add an input to a request."""
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    if datatype == "BYTES":
        elements = [value.encode() if isinstance(value, str) else value for value in values]
        if raw:
            request.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in elements))
        else:
            tensor.contents.bytes_contents.extend(elements)
    elif raw:
        request.raw_input_contents.append(np.asarray(values, _KINDS[datatype]).tobytes())
    else:
        getattr(tensor.contents, FIELDS[datatype]).extend(np.ravel(values).tolist())


def ask(model: str, *, raw: bool, **given: Any) -> pb.ModelInferRequest:
    """A request for the rows of `kinds` that a model takes."""
    request = pb.ModelInferRequest(model_name=model, **given)
    if model == "row":
        add(request, "input", ROWS_OF_NUMBERS, "FP32", [3, 5], raw=raw)
    elif model == "text":
        add(request, "input", TEXTS, "BYTES", [3, 1], raw=raw)
    elif model == "pixels":
        add(request, "input", FILES, "BYTES", [3], raw=raw)
    elif model == "table":
        nan = float("nan")
        add(request, "age", [row["age"] for row in ROWS], "INT64", [3, 1], raw=raw)
        incomes = [nan if row["income"] is None else row["income"] for row in ROWS]
        add(request, "income", incomes, "FP64", [3, 1], raw=raw)
        add(request, "city", [row["city"] or "" for row in ROWS], "BYTES", [3, 1], raw=raw)
        add(request, "member", [str(row["member"]).lower() for row in ROWS], "BYTES", [3, 1], raw=raw)
    return request


def read(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """The outputs of an answer as arrays, by name."""
    outputs = {}
    for place, output in enumerate(answer.outputs):
        if not answer.raw_output_contents:
            values = list(getattr(output.contents, FIELDS[output.datatype]))
            kind = object if output.datatype == "BYTES" else _KINDS[output.datatype]
            outputs[output.name] = np.array(values, kind).reshape(list(output.shape))
        elif output.datatype == "BYTES":
            outputs[output.name] = np.array(_split(answer.raw_output_contents[place]), object)
        else:
            kind = _KINDS[output.datatype]
            outputs[output.name] = np.frombuffer(answer.raw_output_contents[place], kind).reshape(list(output.shape))
    return outputs


def _split(raw: bytes) -> list[bytes]:
    elements = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        elements.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return elements
