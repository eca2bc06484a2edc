"""Train, calibrate, serve and ask: the whole of Dubio in a minute, on handwritten digits.

python examples/demo.py                 trains, then serves on port 8000 until Ctrl-C
python examples/demo.py --port 9000
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from dubio.training.data.digits import Digits
from dubio.training.data.ood import inverted, photograph_patches, uniform_noise

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "digits_mlp"
CHECKPOINT = Path("runs/digits_mlp/model.ckpt")
HOST = "127.0.0.1"
READY_SECONDS = 60

console = Console()


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="port to serve on (default: 8000)")
    port = parser.parse_args().port
    if taken(port):
        console.print(f"Port {port} of {HOST} is in use; choose another one: [bold]make demo PORT={port + 1}[/]")
        return 1

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # however the demo ends, the service ends with it
    console.rule("[bold]1  Train and calibrate")
    command = [sys.executable, "-m", "dubio.training", "fit", "--config", CONFIG]
    console.print(f"[dim]dubio-train fit --config {CONFIG}[/]")
    try:
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return 1
    except KeyboardInterrupt:
        return 130

    console.rule("[bold]2  Serve")
    console.print(f"[dim]dubio-serve {CHECKPOINT} --port {port}[/]")
    command = [sys.executable, "-m", "dubio.serving", str(CHECKPOINT), "--host", HOST, "--port", str(port)]
    # A session of its own: Ctrl-C reaches this script alone, which then stops the service in good order.
    service = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, start_new_session=True)
    try:
        return ask(f"http://{HOST}:{port}", service)
    except KeyboardInterrupt:
        console.print("\nStopping.")
        return 0
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def taken(port: int) -> bool:
    """Whether something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def ask(url: str, service: subprocess.Popen[bytes]) -> int:
    """Ask the running service about digits and strangers, then leave it running."""
    with httpx.Client(base_url=url) as client:
        if not wait_until_ready(client, service):
            return 1
        console.rule("[bold]3  Ask")
        rows, instances = questions()
        answer = client.post("/v1/predict", json={"instances": instances})
        answer.raise_for_status()
        body = answer.json()
        console.print(answers_table(rows, body["predictions"]))
        calibration = client.get(f"/v1/models/{body['model']['name']}").json()["calibration"]
    decision = body["predictions"][0]["decision"]
    console.print(f"[dim]flagged: {calibration['promise']}.[/]")
    if decision["accepted"] is not None:
        console.print(
            f"[dim]accepted: at most {decision['risk']:.1%} of accepted answers are wrong, with confidence "
            f"{decision['confidence']:.0%}.[/]"
        )
    console.print(f"\nOpen [bold link={url}]{url}[/] to draw a digit yourself,")
    console.print(f"[bold]{url}/docs[/] for every route, or paste this into another terminal:\n")
    console.print(curl(url, instances[0]), soft_wrap=True, highlight=False)
    console.print("\nCtrl-C stops the service. [dim]Half of what was asked are strangers, so it may warn of drift.[/]")
    service.wait()
    return service.returncode


def wait_until_ready(client: httpx.Client, service: subprocess.Popen[bytes]) -> bool:
    """Wait for the readiness probe; says so when the service ends or is too slow."""
    end = time.monotonic() + READY_SECONDS
    with console.status("Loading the model"):
        while time.monotonic() < end and service.poll() is None:
            try:
                if client.get("/v2/health/ready").status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    console.print(f"The service was not ready within {READY_SECONDS} s; see what it printed above.")
    return False


def questions() -> tuple[list[str], list[Any]]:
    """Five digits of the test split and five strangers: what each is, and its pixels."""
    digits = Digits()
    x, labels = digits.raw("test")
    asked = [
        *((f"digit {int(label)}", image) for image, label in zip(x[:5], labels[:5], strict=True)),
        *(("photograph", image) for image in photograph_patches(digits.input, 2)),
        *(("uniform noise", image) for image in uniform_noise(digits.input, 2)),
        (f"inverted {int(labels[0])}", inverted(digits.input, x[0])),
    ]
    return [what for what, _ in asked], [torch.round(image, decimals=1).tolist() for _, image in asked]


def answers_table(rows: list[str], predictions: list[dict[str, Any]]) -> Table:
    """Both answers, the uncertainty and the flag, one line an instance."""
    table = Table(
        title="What the service said", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for name in ("input", "deterministic", "MC dropout", "p-value", "flagged", "accepted"):
        left = name in {"input", "flagged", "accepted"}
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for index, (what, prediction) in enumerate(zip(rows, predictions, strict=True)):
        deterministic, mc, ood = prediction["deterministic"], prediction["mc"], prediction["ood"]
        best = max(range(len(mc["mean"])), key=mc["mean"].__getitem__)
        table.add_row(
            what,
            f"{deterministic['label']}  {deterministic['probability']:.2f}",
            f"{mc['label']}  {mc['mean'][best]:.2f} ± {mc['std'][best]:.2f}",
            f"{ood['p_value']:.3f}",
            f"[bold red]{ood['reason']}[/]" if ood["flagged"] else "[green]no[/]",
            {True: "[green]yes[/]", False: "[bold red]no[/]", None: "no promise"}[prediction["decision"]["accepted"]],
            end_section=index == 4,
        )
    return table


def curl(url: str, instance: Any) -> str:
    """A line to paste that asks about one instance."""
    body = json.dumps({"instances": [instance]}, separators=(",", ":"))
    return f"curl -s {url}/v1/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}"


if __name__ == "__main__":
    sys.exit(main())
