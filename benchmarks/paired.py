"""Two services that differ in one thing, asked in turns by wrk, and the table of what that thing costs."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from service import ROW, Measured, running, wrk

_PORTS = (8721, 8722)
_COLUMNS = ("per_second", "p50", "p99")


def parse(description: str | None) -> argparse.Namespace:
    """The options that such a benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=3, help="of one round of one of both (%(default)s)")
    parser.add_argument("--strangers", type=float, default=0.05, help="share of requests (%(default)s)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; try: apt-get install wrk")
    return arguments


def compare(
    folder: Path, services: Sequence[Sequence[str]], titles: Sequence[str], arguments: argparse.Namespace
) -> None:
    """Start both, ask them in turns, and print medians of the rounds and of their ratios.

    Args:
        folder: For wrk's script.
        services: The commands that start the plain one and the other one, without their ports.
        titles: Of the two, in the table.
        arguments: See `parse`.
    """
    script = folder / "requests.lua"
    _write_script(script, arguments.strangers)
    rounds: dict[int, list[Measured]] = {port: [] for port in _PORTS}
    with ExitStack() as stack:
        for port, command in zip(_PORTS, services, strict=True):
            # Two processes may not find the same strategy the fastest, which would be compared instead.
            alike = ["--strategy", "thinned", "--port", str(port)]
            stack.enter_context(running([*command, *alike], port, "/v2/health/ready", {}))
        for index in range(arguments.rounds + 1):
            for port in _PORTS if index % 2 else _PORTS[::-1]:
                url = f"http://127.0.0.1:{port}/v1/predict"
                measured = wrk(url, script, arguments.connections, arguments.seconds, "requests")
                if index:  # the first round warms up
                    rounds[port].append(measured)
    plain, other = (rounds[port] for port in _PORTS)
    print(
        f"{arguments.connections} connections, {arguments.strangers:.0%} strangers; "
        f"medians of {arguments.rounds} rounds\n\n| | requests/s | p50 ms | p99 ms |\n| --- | --- | --- | --- |"
    )
    for title, measures in zip(titles, (plain, other), strict=True):
        medians = [statistics.median(getattr(each, name) for each in measures) for name in _COLUMNS]
        print(f"| {title} | " + " | ".join(f"{value:.2f}" for value in medians) + " |")
    ratios = [
        statistics.median(
            getattr(with_it, name) / getattr(without, name) for with_it, without in zip(other, plain, strict=True)
        )
        for name in _COLUMNS
    ]
    print("| ratio | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |\n")


def _write_script(path: Path, strangers: float) -> None:
    """Requests, of which every so many is a stranger."""
    familiar, stranger = (
        json.dumps({"instances": [[round(float(value), 4) for value in row]]}) for row in (ROW * 0.5, np.sign(ROW) * 50)
    )
    path.write_text(
        f"local familiar = '{familiar}'\nlocal stranger = '{stranger}'\nlocal due = 0\n"
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f"request = function()\n  due = due + {strangers}\n"
        "  local body = familiar\n  if due >= 1 then due = due - 1; body = stranger end\n"
        "  return wrk.format(nil, nil, nil, body)\nend\n"
        "done = function(summary, latency)\n  local e = summary.errors\n"
        "  local bad = e.connect + e.read + e.write + e.status + e.timeout\n"
        '  print(string.format("RESULT %d %d %f %f %d", summary.requests, summary.duration,\n'
        "        latency:percentile(50), latency:percentile(99), bad))\nend\n"
    )
