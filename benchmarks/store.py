"""What does the store cost those who ask?

    apt-get install wrk
    python benchmarks/store.py                       32 connections, one in twenty a stranger
    python benchmarks/store.py --connections 1 --strangers 1.0

Serves the model of `benchmarks/service.py` twice, with a store (SQLite, one in a hundred other rows sampled) and
without, and loads both over loopback with wrk in turns; medians of the rounds, and of their ratios, are printed. Only
one of them is asked at a time, and client and server share this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from service import ROW, Measured, checkpoint, running, wrk

PLAIN, STORING = 8721, 8722


def write_script(path: Path, strangers: float) -> None:
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=3, help="of one round of one of both (%(default)s)")
    parser.add_argument("--strangers", type=float, default=0.05, help="share of requests (%(default)s)")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; try: apt-get install wrk")
    rounds: dict[int, list[Measured]] = {PLAIN: [], STORING: []}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_script(folder / "requests.lua", arguments.strangers)
        serve = [sys.executable, "-m", "dubio.serving", f"mlp={checkpoint(folder)}", "--log-level", "error"]
        for port, more in ((PLAIN, []), (STORING, ["--store", str(folder / "store.sqlite")])):
            command = [*serve, "--port", str(port), *more]
            stack.enter_context(running(command, port, "/v2/health/ready", {}))
        for index in range(arguments.rounds + 1):
            for port in (PLAIN, STORING) if index % 2 else (STORING, PLAIN):
                measured = wrk(
                    f"http://127.0.0.1:{port}/v1/predict",
                    folder / "requests.lua",
                    arguments.connections,
                    arguments.seconds,
                    "the store's requests",
                )
                if index:  # the first round warms up
                    rounds[port].append(measured)
        stack.close()
        with sqlite3.connect(folder / "store.sqlite") as connection:
            [(stored,)] = connection.execute("SELECT count(*) FROM answers").fetchall()
        connection.close()
    print(
        f"{arguments.connections} connections, {arguments.strangers:.0%} strangers; medians of {arguments.rounds} "
        f"rounds; {stored} rows were stored\n"
    )
    print("| | requests/s | p50 ms | p99 ms |\n| --- | --- | --- | --- |")
    for title, port in (("without a store", PLAIN), ("with", STORING)):
        values = [[getattr(each, name) for each in rounds[port]] for name in ("per_second", "p50", "p99")]
        print(f"| {title} | " + " | ".join(f"{statistics.median(each):.2f}" for each in values) + " |")
    ratios = [
        statistics.median(
            getattr(one, name) / getattr(other, name) for one, other in zip(rounds[STORING], rounds[PLAIN], strict=True)
        )
        for name in ("per_second", "p50", "p99")
    ]
    print("| ratio | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
