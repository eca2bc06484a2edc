"""What does gRPC cost, beside HTTP?

    python benchmarks/transports.py                  32 connections, one row a request
    python benchmarks/transports.py --rows 64 --seconds 5

Serves the MLP of benchmarks/service.py by one `dubio-serve` with both ports, and asks it for the same in four forms:
gRPC with raw values, as Triton's client sends them, gRPC with typed values, and `/v2` over HTTP in binary and in JSON.
The caller is one Python process with as many connections, each with one request at a time, on grpcio's asyncio client
or on asyncio's streams, and sends bytes that were made before. It shares the cores with the service, and grpcio's
client takes more of them than a few lines over a stream, so the table also has the processor time that the service
takes for a request, which no client changes. Forms take turns; medians and ratios are printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import numpy as np
import psutil
from service import DUBIO, ROW, checkpoint, running

from dubio.serving.rpc import open_inference_pb2 as pb

GRPC = DUBIO + 10
METHOD = "/inference.GRPCInferenceService/ModelInfer"
WANTED = {
    "deterministic": ("label", "probabilities"),
    "MC and flag": ("label", "probabilities", "mc_mean", "mc_std", "mutual_information", "ood_p_value", "ood_flag"),
}
Ask = Callable[[], Awaitable[None]]


def over_grpc(rows: np.ndarray, outputs: tuple[str, ...], *, raw: bool) -> bytes:
    """A message."""
    request = pb.ModelInferRequest(model_name="mlp", outputs=[{"name": name} for name in outputs])
    tensor = request.inputs.add(name="input", datatype="FP32", shape=rows.shape)
    if raw:
        request.raw_input_contents.append(rows.tobytes())
    else:
        tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    return request.SerializeToString()


def over_http(rows: np.ndarray, outputs: tuple[str, ...], *, binary: bool) -> bytes:
    """A request, head and body."""
    tensor = {"name": "input", "shape": rows.shape, "datatype": "FP32"}
    raw = rows.tobytes() if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": rows.ravel().tolist()}
    wanted = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    fields = f"Inference-Header-Content-Length: {len(head)}\r\n" if binary else ""
    kind = "octet-stream" if binary else "json"
    first = f"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n{fields}"
    return f"{first}Content-Length: {len(head) + len(raw)}\r\n\r\n".encode() + head + raw


async def call(stack: AsyncExitStack, message: bytes) -> Ask:
    """Asks over a channel of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{GRPC}", options))
    method = channel.unary_unary(METHOD)

    async def ask() -> None:
        await method(message)

    return ask


async def connect(stack: AsyncExitStack, request: bytes) -> Ask:
    """Asks over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", DUBIO)
    stack.callback(writer.close)

    async def ask() -> None:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(length.partition(b":")[2]))

    return ask


async def measure(asks: list[Ask], seconds: float, server: psutil.Process) -> tuple[float, float, float]:
    """Requests a second, the median latency and the service's processor time for one, in milliseconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def go_on(ask: Ask) -> None:
        while (began := time.perf_counter()) < end:
            await ask()
            latencies.append(time.perf_counter() - began)

    before, began = sum(server.cpu_times()[:2]), time.perf_counter()
    await asyncio.gather(*map(go_on, asks))
    wall, cpu = time.perf_counter() - began, sum(server.cpu_times()[:2]) - before
    return len(latencies) / wall, 1e3 * statistics.median(latencies), 1e3 * cpu / len(latencies)


async def compare(arguments: argparse.Namespace, server: psutil.Process) -> None:
    """Measure and print."""
    rows = np.repeat(ROW[None], arguments.rows, axis=0).astype(np.float32)
    print("| answer | form | requests/s | p50 ms | service's CPU ms | over binary HTTP | CPU over binary HTTP |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for answer, outputs in WANTED.items():
        forms: dict[str, tuple[Callable[[AsyncExitStack, bytes], Awaitable[Ask]], bytes]] = {
            "`/v2` binary": (connect, over_http(rows, outputs, binary=True)),
            "`/v2` JSON": (connect, over_http(rows, outputs, binary=False)),
            "gRPC raw": (call, over_grpc(rows, outputs, raw=True)),
            "gRPC typed": (call, over_grpc(rows, outputs, raw=False)),
        }
        measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in forms}
        async with AsyncExitStack() as stack:
            asks = {
                name: [await make(stack, body) for _ in range(arguments.connections)]
                for name, (make, body) in forms.items()
            }
            for name in forms:
                await measure(asks[name], 0.5, server)
            for _ in range(arguments.rounds):
                for name in forms:
                    measured[name].append(await measure(asks[name], arguments.seconds, server))
        reference = measured["`/v2` binary"]
        for name, turns in measured.items():
            speed, latency, cpu = (statistics.median(turn[i] for turn in turns) for i in range(3))
            faster, dearer = (
                statistics.median(turn[i] / other[i] for turn, other in zip(turns, reference, strict=True))
                for i in (0, 2)
            )
            print(f"| {answer} | {name} | {speed:,.0f} | {latency:.2f} | {cpu:.2f} | {faster:.2f}x | {dearer:.2f}x |")


def main() -> None:
    """Serve and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1, help="of one request (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of one round of one form (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = checkpoint(Path(folder))
        command = [
            sys.executable,
            "-m",
            "dubio.serving",
            f"mlp={model}",
            "--port",
            str(DUBIO),
            "--grpc-port",
            str(GRPC),
        ]
        with running(command, DUBIO, "/v2/health/ready", {}):
            [server] = [child for child in psutil.Process(os.getpid()).children() if str(GRPC) in child.cmdline()]
            asyncio.run(compare(arguments, server))


if __name__ == "__main__":
    main()
