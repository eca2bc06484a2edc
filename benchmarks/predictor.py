"""What one prediction costs, by what is asked for, in processor time.

    python benchmarks/predictor.py                              this processor, and one with AVX2 alone
    python benchmarks/predictor.py --against OTHER_CHECKOUT     this code over another version of it, in turns

`Predictor.predict` of an MLP 784-512-256-128-10 with 100 members, whose detector compares 5000 training rows, and what
the service writes of the answer. Checkouts take turns in short rounds, each in a process of its own; medians, and
medians of ratios. Members run as `chain` for up to 8 rows and as `thinned` for more, whatever the autotuner would
choose. Instruction sets are hidden as in `benchmarks/cliffs.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import IO, Any

import torch
from cliffs import INSTRUCTIONS
from engine import show

from dubio.models import AUTO, MLP, InputSpec, NetworkSpec, Predictor, Temperature, Work
from dubio.serving.v1 import encode as v1
from dubio.serving.v2 import encode as v2
from dubio.serving.v2.decode import SelectedOutput
from dubio.serving.v2.outputs import OUTPUTS
from dubio.uncertainty import AdaptiveSampling, Detector
from dubio.uncertainty.detection import promises

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 100
ROWS = (1, 8, 32)
CLASSES = tuple("0123456789")
KINDS = (
    "deterministic",
    "MC",
    "MC and label set",
    "MC and flag, no decision",
    "MC and flag",
    "auto",
    "JSON of /v1",
    "binary of /v2",
)


def build(strategy: str) -> Predictor:
    """An untrained network, calibrated on noise: speed does not depend on what it has learned."""
    torch.manual_seed(0)
    network = MLP().eval()
    inputs = InputSpec(kind="numbers", shape=(784,), mean=(0.0,) * 784, std=(1.0,) * 784, low=-3.0, high=3.0)
    spec = NetworkSpec(class_path="dubio.models.MLP", init_args={})
    predictor = Predictor.build(network, spec, inputs, CLASSES, num_samples=SAMPLES, strategy=strategy)
    train, *rest = (torch.randn(rows, 784).clamp(-3, 3) for rows in (5000, 500, 500))
    select, calibration = map(predictor.outputs, rest)
    fitted = Detector.fit(predictor.deterministic(train), torch.arange(5000) % 10, select)
    detector = fitted.calibrate(calibration)
    flag = detector.calibration
    assert flag is not None
    stopping = AdaptiveSampling.fit(fitted, select, 500).calibrate(fitted, calibration)
    rounding, given = detector.least_rounding, (predictor.classify, detector)
    # An untrained network is seldom right; a risk of nine tenths can be promised, and costs what any other does.
    labels = [predictor.classify(each.deterministic)[0] for each in (select, calibration)]
    told = [
        promises.with_all_members(*given, *pair, rounding) for pair in zip((select, calibration), labels, strict=True)
    ]
    promised = promises.AnswerPromises.fit(told[0], told[1], flag, risks=(0.9,))
    return predictor.calibrated(Temperature(), detector, None, stopping, promised, promised)


def kinds(predictor: Predictor, rows: int) -> dict[str, Callable[[], object]]:
    """What is measured."""
    x = torch.randn(rows, 784).clamp(-3, 3).numpy()
    bare = replace(predictor, promises=None)
    answer = predictor.predict(x)
    model: Any = SimpleNamespace(name="mlp", version="1", predictor=predictor)
    outputs = tuple(SelectedOutput(output, binary=True, classification=None) for output in OUTPUTS.values())
    request: Any = SimpleNamespace(id=None, outputs=outputs, listed=True, work=Work.FLAG, samples=SAMPLES)
    calls: tuple[Callable[[], object], ...] = (
        lambda: predictor.predict(x, work=Work.DETERMINISTIC),
        lambda: predictor.predict(x, work=Work.MC),
        lambda: predictor.predict(x, work=Work.LABEL_SET),
        lambda: bare.predict(x),
        lambda: predictor.predict(x),
        lambda: predictor.predict(x, samples=AUTO),
        lambda: v1.encode_response(answer, model=model, request_id=None, images=[None] * rows),
        lambda: v2.encode_response(answer, request=request, model=model),
    )
    return dict(zip(KINDS, calls, strict=True))


def child(threads: int) -> None:
    """Measure what standard input names, line by line: milliseconds of processor time."""
    torch.set_num_threads(threads)
    predictors = {strategy: build(strategy) for strategy in ("chain", "thinned")}
    asked = {rows: kinds(predictors["chain" if rows <= 8 else "thinned"], rows) for rows in ROWS}
    print("ready", flush=True)
    for line in sys.stdin:
        kind, rows, calls = json.loads(line)
        call = asked[rows][kind]
        call()
        start = time.process_time()
        for _ in range(calls):
            call()
        print(1e3 * (time.process_time() - start) / calls, flush=True)


def measure(roots: list[Path], name: str, threads: int, rounds: int) -> dict[tuple[str, int], list[list[float]]]:
    """Milliseconds of each round, of each checkout, by kind and rows."""
    with ExitStack() as stack:
        pipes: list[tuple[IO[str], IO[str]]] = []
        for root in roots:
            environment = os.environ | INSTRUCTIONS[name] | {"PYTHONPATH": str(root)}
            command = [sys.executable, __file__, "--child", str(threads)]
            started = subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, text=True)
            asks, says = (stack.enter_context(started).stdin, started.stdout)
            assert asks is not None
            assert says is not None
            says.readline()
            pipes.append((asks, says))
        times: dict[tuple[str, int], list[list[float]]] = {}
        for _ in range(rounds):
            for rows in ROWS:
                for kind in KINDS:
                    for index, (asks, says) in enumerate(pipes):
                        asks.write(json.dumps([kind, rows, 40 if rows == 1 else 10]) + "\n")
                        asks.flush()
                        found = times.setdefault((kind, rows), [[] for _ in roots])
                        found[index].append(float(says.readline()))
        return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=["AVX2", "all"])
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    roots = [ROOT] if arguments.against is None else [arguments.against.resolve(), ROOT]
    lines = [["asked for", "instructions", *(f"{rows} rows" for rows in ROWS)]]
    for name in arguments.instructions:
        times = measure(roots, name, arguments.threads, arguments.rounds)
        for kind in KINDS:
            cells = []
            for rows in ROWS:
                found = times[kind, rows]
                medians = [f"{statistics.median(each):.3f}" for each in found]
                ratio = statistics.median(new / old for old, new in zip(found[0], found[-1], strict=True))
                cells.append(" to ".join(medians) + (f" ({ratio:.2f})" if len(roots) > 1 else ""))
            lines.append([kind, name, *cells])
    print(f"torch {torch.__version__}, ms\n")
    show(lines)


if __name__ == "__main__":
    main()
