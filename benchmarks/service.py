"""How fast is the service, and what does uncertainty cost?

    apt-get install wrk
    python benchmarks/service.py                     32 connections, one row a request
    python benchmarks/service.py --connections 1 --rounds 5
    python benchmarks/service.py --peers PYTHON ...  also LitServe, BentoML and MLServer, where they are installed
    python benchmarks/service.py --reload 1          Dubio's model is replaced every second meanwhile
    python benchmarks/service.py --device cuda       Dubio and what is written by hand on a GPU
    python benchmarks/service.py --instructions AVX2 newer ones hidden from every server, as in benchmarks/cliffs.py

Serves an MLP 784-512-256-128-10 with 100 members, which has learned to tell ten clusters apart and has the default
scores of rows of numbers, and loads it over loopback with wrk and a familiar row, beside what one writes by hand: a
FastAPI handler with the textbook loop (`benchmarks/handmade.py`). Contenders take turns in short rounds; medians and
ratios are printed as a Markdown table. Other servers run the same loop on the batches that they put together, each in
an interpreter that can import it (`benchmarks/peer_*.py`); give them rounds of some seconds, since a batch takes one.
Client and servers share this machine's cores, as they do for every contender.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from cliffs import INSTRUCTIONS
from rich.progress import Progress

from dubio import models
from dubio.models import MLP, InputSpec, NetworkSpec, Predictor, Provenance, Temperature
from dubio.models.checkpoint.state_dict import sha256
from dubio.training.score_choice import default_scores
from dubio.uncertainty import AdaptiveSampling, Detector

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 100
DUBIO, HANDMADE = 8711, 8712
KEY = "benchmark-0123456789"


@dataclass(frozen=True)
class Contender:
    """One kind of request.

    Attributes:
        name: in the table.
        port: of the server.
        path: of the route.
        body: bytes of one request.
        headers: beside Content-Type.
    """

    name: str
    port: int
    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Peer:
    """Another server.

    Attributes:
        name: in the table.
        module: to import.
        port: where it listens.
        ready: path that answers when it is.
        paths: of its deterministic and its MC answer.
        is_v2: whether it takes the Open Inference Protocol's JSON.
    """

    name: str
    module: str
    port: int
    ready: str
    paths: tuple[str, str] = ("/deterministic", "/mc")
    is_v2: bool = False


PEERS = (
    Peer("LitServe", "litserve", 8713, "/health"),
    Peer("BentoML", "bentoml", 8714, "/readyz"),
    Peer(
        "MLServer",
        "mlserver",
        8715,
        "/v2/models/mc/ready",
        ("/v2/models/deterministic/infer", "/v2/models/mc/infer"),
        is_v2=True,
    ),
)


@dataclass(frozen=True)
class Measured:
    """Of one round."""

    per_second: float
    p50: float
    p99: float


def draw(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows ``[N, 784]`` of ten clusters, and which each is of."""
    generator = torch.Generator().manual_seed(seed)
    centres = 0.25 * torch.randn(10, 784, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(10, (rows,), generator=generator)
    return (centres[labels] + torch.randn(rows, 784, generator=generator)).clamp(-3, 3), labels


ROW = draw(1, 4)[0][0].numpy()


def checkpoint(folder: Path) -> Path:
    """An MLP that tells ten clusters apart, calibrated: how many members `auto` asks depends on what it has learned."""
    torch.manual_seed(0)
    network = MLP()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    rows, labels = draw(20_000, 1)
    for part in torch.randperm(len(rows)).split(250):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(rows[part]), labels[part]).backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    inputs = InputSpec(kind="numbers", shape=(784,), mean=(0.0,) * 784, std=(1.0,) * 784, low=-3.0, high=3.0)
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args={})
    predictor = Predictor.build(network, spec, inputs, tuple("0123456789"), num_samples=SAMPLES)
    select, calibration = predictor.outputs(draw(1000, 2)[0]), predictor.outputs(draw(1000, 3)[0])
    names = default_scores(inputs, predictor.tap.blocks)
    fitted = Detector.fit(predictor.deterministic(rows), labels, select, names)
    detector = fitted.calibrate(calibration)
    stopping = AdaptiveSampling.fit(fitted, select, 1000).calibrate(fitted, calibration)
    weights = sha256(network.state_dict())
    provenance = Provenance(
        data="clusters", data_sha256="0" * 64, weights_sha256=weights, date="2026-01-01", versions={}
    )
    source = folder / "source.ckpt"
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, source)
    models.save(predictor.calibrated(Temperature(), detector, provenance, stopping), source, folder / "model.ckpt")
    return folder / "model.ckpt"


def binary(name: str, outputs: tuple[str, ...], parameters: Mapping[str, str] | None = None) -> Contender:
    """A request in the Open Inference Protocol's binary form."""
    raw = ROW.tobytes()
    tensor = {"name": "input", "shape": [1, 784], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": output, "parameters": {"binary_data": True}} for output in outputs]
    head = json.dumps({"inputs": [tensor], "outputs": wanted, "parameters": dict(parameters or {})}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return Contender(name, DUBIO, "/v2/models/mlp/infer", head + raw, headers)


def contenders(peers: list[Peer]) -> list[Contender]:
    """What is measured, the reference of the ratios first."""
    row = [round(float(value), 4) for value in ROW]
    instances = json.dumps({"instances": [row]}).encode()
    tensor = json.dumps({"inputs": [{"name": "input", "shape": [1, 784], "datatype": "FP32", "data": row}]}).encode()
    plain = {"Content-Type": "application/json"}
    flag = ("label", "probabilities", "mc_mean", "mc_std", "mutual_information", "ood_p_value", "ood_flag")
    return [
        binary("Dubio, deterministic", ("label", "probabilities")),
        binary("Dubio, MC", ("mc_mean", "mc_std")),
        binary("Dubio, MC and flag", flag),
        binary("Dubio, MC and flag, as many members as it takes", flag, {"samples": "auto"}),
        Contender("Dubio, /v1 JSON, both and flag", DUBIO, "/v1/models/mlp/predict", instances, plain),
        Contender("FastAPI by hand, deterministic", HANDMADE, "/deterministic", instances, plain),
        Contender("FastAPI by hand, MC loop", HANDMADE, "/mc", instances, plain),
        *(
            Contender(f"{peer.name}, {kind}", peer.port, path, tensor if peer.is_v2 else instances, plain)
            for peer in peers
            for kind, path in zip(("deterministic", "MC loop"), peer.paths, strict=True)
        ),
    ]


def find(interpreters: list[str]) -> dict[Peer, str]:
    """The peers that can run here, and in which interpreter."""
    found = {}
    for peer in PEERS:
        for interpreter in interpreters:
            done = subprocess.run([interpreter, "-c", f"import {peer.module}, torch"], check=False, capture_output=True)
            if done.returncode == 0:
                found[peer] = interpreter
                break
    return found


@contextmanager
def running(
    command: list[str], port: int, ready: str, environment: Mapping[str, str], *, quiet: bool = False
) -> Iterator[None]:
    """A server, from its first answer to its end; `quiet` if it would write into the table."""
    # Some start processes of their own, which do not all go when it is told to.
    environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    log = subprocess.DEVNULL if quiet else None
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1):
                    break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended with code {server.returncode}") from None
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def reloading(seconds: float | None, model: Path) -> Iterator[None]:
    """Dubio's model, replaced every so many seconds by one with the same content."""
    stopped = threading.Event()

    def reload() -> None:
        while seconds and not stopped.wait(seconds):
            new = model.with_suffix(".new")
            shutil.copyfile(model, new)
            new.replace(model)
            url = f"http://127.0.0.1:{DUBIO}/v2/repository/models/mlp/load"
            request = urllib.request.Request(url, b"{}", {"X-API-Key": KEY}, method="POST")
            urllib.request.urlopen(request, timeout=60).close()

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def load(contender: Contender, folder: Path, connections: int, seconds: int) -> Measured:
    """One round of wrk."""
    script = folder / "request.lua"
    body = "".join(f"\\{byte:03d}" for byte in contender.body)
    given = {**contender.headers, "X-API-Key": KEY} if contender.port == DUBIO else contender.headers
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in given.items())
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = "{body}"\n{headers}'
        "done = function(summary, latency)\n"
        "  local e = summary.errors\n"
        "  local bad = e.connect + e.read + e.write + e.status + e.timeout\n"
        '  print(string.format("RESULT %d %d %f %f %d", summary.requests, summary.duration,\n'
        "        latency:percentile(50), latency:percentile(99), bad))\nend\n"
    )
    return wrk(f"http://127.0.0.1:{contender.port}{contender.path}", script, connections, seconds, contender.name)


def wrk(url: str, script: Path, connections: int, seconds: int, name: str) -> Measured:
    """One round, with a script that prints its `RESULT`."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", printed)
    if found is None or int(found[5]):
        raise SystemExit(f"{name}: requests failed\n{printed}")
    if not int(found[1]):  # none was answered in time
        return Measured(0, math.nan, math.nan)
    return Measured(int(found[1]) / (int(found[2]) / 1e6), float(found[3]) / 1e3, float(found[4]) / 1e3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of one round of one contender")
    parser.add_argument("--serve", nargs="*", default=[], help="more options for dubio-serve, without their dashes")
    parser.add_argument("--peers", nargs="*", default=[], metavar="PYTHON", help="interpreters to look for others in")
    parser.add_argument("--reload", type=float, metavar="SECONDS", help="replace Dubio's model as often")
    parser.add_argument(
        "--instructions", choices=INSTRUCTIONS, default="all", help="what servers may use (%(default)s)"
    )
    parser.add_argument("--only", nargs="*", default=[""], metavar="WORDS", help="contenders with such a name")
    parser.add_argument("--device", default="cpu", help="where the networks run (%(default)s)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; try: apt-get install wrk")
    peers = find([sys.executable, *arguments.peers])
    all_contenders = [each for each in contenders(list(peers)) if any(words in each.name for words in arguments.only)]
    environment = INSTRUCTIONS[arguments.instructions]
    rounds: dict[str, list[Measured]] = {contender.name: [] for contender in all_contenders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = [f"--{option}" if index % 2 == 0 else option for index, option in enumerate(arguments.serve)]
        dubio = [sys.executable, "-m", "dubio.serving", f"mlp={checkpoint(folder)}", "--port", str(DUBIO), *options]
        dubio += ["--device", arguments.device]
        handmade = [sys.executable, "benchmarks/handmade.py", str(HANDMADE), arguments.device]
        if arguments.reload:
            (folder / "keys").write_text(f"infer,admin:{KEY}\n")
            (folder / "keys").chmod(0o600)
            dubio += ["--api-keys-file", str(folder / "keys")]
        with ExitStack() as stack:
            stack.enter_context(running([*dubio, "--log-level", "warning"], DUBIO, "/v2/health/ready", environment))
            stack.enter_context(running(handmade, HANDMADE, "/ready", environment))
            for peer, python in peers.items():
                script = f"benchmarks/peer_{peer.module}.py"
                command = [python, script, str(peer.port)]
                stack.enter_context(running(command, peer.port, peer.ready, environment, quiet=True))
            stack.enter_context(reloading(arguments.reload, folder / "model.ckpt"))
            bar = stack.enter_context(Progress(transient=True))
            task = bar.add_task("Measuring", total=(arguments.rounds + 1) * len(all_contenders))
            for index in range(arguments.rounds + 1):
                for contender in all_contenders:
                    measured = load(contender, folder, arguments.connections, arguments.seconds if index else 1)
                    bar.advance(task)
                    if index:  # the first round warms up
                        rounds[contender.name].append(measured)
    reference = statistics.median(measured.per_second for measured in rounds[all_contenders[0].name])
    print(
        f"{arguments.connections} connections, one row a request, T = {SAMPLES}; medians of {arguments.rounds} rounds; "
        f"instructions: {arguments.instructions}"
    )
    print(f"Dubio's model is replaced every {arguments.reload:g} s\n" if arguments.reload else "")
    print("| contender | requests/s | p50 ms | p99 ms | p99 / p50 | of Dubio's deterministic |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, all_measured in rounds.items():
        per_second = statistics.median(measured.per_second for measured in all_measured)
        p50 = statistics.median(measured.p50 for measured in all_measured)
        p99 = statistics.median(measured.p99 for measured in all_measured)
        print(f"| {name} | {per_second:.0f} | {p50:.2f} | {p99:.2f} | {p99 / p50:.1f} | {per_second / reference:.2f} |")


if __name__ == "__main__":
    main()
