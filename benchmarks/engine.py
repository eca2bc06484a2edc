"""How much faster is the committee than the textbook loop, and what does it cost as members and rows grow?

    python benchmarks/engine.py                        the table: all networks and batch sizes
    python benchmarks/engine.py --networks mlp --batches 1
    python benchmarks/engine.py --growth engine.svg    cost against T and B, peak memory, and the figure
    python benchmarks/engine.py --device cuda          on a GPU: T = 100, batches of 1, 32 and 256, by CUDA events
    python benchmarks/engine.py --device cuda --dtype bfloat16

Contenders are interleaved in one run, so that a slow moment of the machine hits all of them: each in turn is called a
few times in a row, as a server would, and the first of those calls, with caches that another contender left, is not
counted. The medians and the ratio to the textbook loop are printed as a Markdown table. Peers (baal, torch-uncertainty,
lightning-uq-box) take part where they are installed.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from contenders import CASES, Case, Predict, everybody
from rich.progress import Progress
from torch import Tensor

SAMPLES = (10, 25, 50, 100, 200, 400)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LARGE = (1000, 512)  # T and B at which memory is measured


def measure(functions: Mapping[str, Predict], x: Tensor, seconds: float, calls: int = 5) -> dict[str, float]:
    """Median milliseconds of each function; they take turns until the time is up, at least twice."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turns < 2:
        turns += 1
        for name, function in functions.items():
            function(x)
            share = time.perf_counter() + seconds / len(functions) / 4
            for _ in range(calls):
                times[name].append(milliseconds(function, x))
                if time.perf_counter() > share:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def milliseconds(function: Predict, x: Tensor) -> float:
    """What one call takes; on a GPU between two events, when its queue is empty at first."""
    if not x.is_cuda:
        start = time.perf_counter()
        function(x)
        return (time.perf_counter() - start) * 1e3
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    function(x)
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last))


def peak() -> float:
    """Billions of floating-point operations a second in a large product of two dense matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2e-6 * 1024**3 / measure({"product": lambda _: a @ b}, a, 1.0, 20)["product"]


def table(cases: Mapping[str, Case], seconds: float) -> list[list[str]]:
    """A row for each network and batch size."""
    lines = []
    with Progress(transient=True) as bar:
        cells = [(name, batch) for name, case in cases.items() for batch in case.batches]
        task = bar.add_task("Measuring", total=len(cells))
        ready: dict[str, dict[str, Predict]] = {}
        loading: dict[str, float] = {}
        for name, case in cases.items():
            start = time.perf_counter()
            ready[name] = {"deterministic": case.network()}
            for contender, build in everybody().items():
                start = time.perf_counter()
                ready[name][contender] = build(case, case.samples)
            loading[name] = time.perf_counter() - start  # the committee's, which is the last
        lines.append(["network", "T", "batch", *ready[next(iter(cases))], "committee over loop"])
        for name, batch in cells:
            medians = measure(ready[name], cases[name].inputs(batch), seconds)
            bar.advance(task)
            row = [name, str(cases[name].samples), str(batch), *(f"{value:.2f}" for value in medians.values())]
            lines.append([*row, f"**{medians['textbook loop'] / medians['committee']:.1f}x**"])
    for name, taken in loading.items():
        print(f"{name}: committee ready in {taken:.2f} s; {getattr(ready[name]['committee'], 'strategy', '')}")
    return lines


def growth(case: Case, seconds: float) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """Milliseconds of each contender by T at 32 rows, and by rows at T = 100."""
    with Progress(transient=True) as bar:
        task = bar.add_task("Measuring", total=len(SAMPLES) + len(ROWS))
        by_samples, by_rows = {}, {}
        for samples in SAMPLES:
            built = {name: build(case, samples) for name, build in everybody().items()}
            by_samples[samples] = measure(built, case.inputs(32), seconds, 3)
            bar.advance(task)
        built = {name: build(case, 100) for name, build in everybody().items()}
        for rows in ROWS:
            by_rows[rows] = measure(built, case.inputs(rows), seconds, 3)
            bar.advance(task)
    return by_samples, by_rows


def line(costs: Mapping[int, float]) -> tuple[float, float]:
    """Intercept and slope of the straight line that fits best, each point weighing the same in proportion."""
    weights = torch.tensor([1 / cost for cost in costs.values()], dtype=torch.float64)
    design = torch.stack([torch.ones(len(costs)), torch.tensor(list(costs))], dim=1).double()
    fitted = torch.linalg.lstsq(design * weights[:, None], torch.ones(len(costs), 1, dtype=torch.float64)).solution
    return float(fitted[0]), float(fitted[1])


def draw(by_samples: Mapping[int, dict[str, float]], by_rows: Mapping[int, dict[str, float]], path: str) -> None:
    """The figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, costs, what in ((left, by_samples, "members T, 32 rows"), (right, by_rows, "rows B, 100 members")):
        for name in next(iter(costs.values())):
            ours = name == "committee"
            axes.plot(
                list(costs),
                [each[name] for each in costs.values()],
                marker="o",
                markersize=3,
                linewidth=2.5 if ours else 1.2,
                color="black" if ours else None,
                label=name.replace("_", "-"),
            )
        axes.set(xlabel=what, ylabel="milliseconds", xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle("MLP 784-512-256-128-10, 2 CPU threads", fontsize=10)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def memory(name: str) -> str:
    """Mebibytes that building one contender and one prediction at T = 1000 and B = 512 add, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--threads", str(torch.get_num_threads())]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def predict_once(name: str) -> None:
    """Print what `memory` reads."""
    samples, rows = LARGE
    case = CASES["mlp"]
    x = case.inputs(rows)
    case.network()(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    everybody()[name](case, samples)(x)
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")


def report_growth(seconds: float, path: str) -> None:
    """Print and draw."""
    by_samples, by_rows = growth(CASES["mlp"], seconds)
    for what, costs in (("T", by_samples), ("B", by_rows)):
        names = list(next(iter(costs.values())))
        show([[what, *names], *([str(at), *(f"{each[name]:.2f}" for name in names)] for at, each in costs.items())])
        print()
    intercept, slope = line({samples: each["committee"] for samples, each in by_samples.items()})
    print(f"committee, 32 rows: {intercept:.2f} ms + {slope * 1000:.1f} us a member")
    print(f"peak memory that building it and one call add at T = {LARGE[0]}, B = {LARGE[1]}, MiB:")
    for name in everybody():
        print(f"  {name}: {memory(name)}")
    draw(by_samples, by_rows, path)


def show(rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print("| " + " | ".join(row) + " |")


def machine(device: str, threads: int) -> str:
    """What was measured on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{threads} threads, {platform.machine()}, a dense product {peak():.0f} GFLOP/s"


def wanted(arguments: argparse.Namespace) -> dict[str, Case]:
    """The cases as they were asked for."""
    on_gpu = torch.device(arguments.device).type == "cuda"
    names = arguments.networks or [name for name in CASES if on_gpu or name != "resnet"]
    cases = {}
    for name in names:
        case = replace(CASES[name], device=arguments.device, dtype=getattr(torch, arguments.dtype))
        if on_gpu:
            case = replace(case, samples=100, batches=(1, 32, 256))
        cases[name] = replace(case, batches=tuple(arguments.batches)) if arguments.batches else case
    return cases


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, help="by default all; on a CPU all but resnet")
    parser.add_argument("--batches", nargs="+", type=int, help="batch sizes; by default those of the network")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each cell")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--tf32", action="store_true", help="let a GPU round single precision before it multiplies")
    parser.add_argument("--growth", metavar="FILE", help="measure growth instead, and draw it into this file")
    parser.add_argument("--memory", metavar="NAME", choices=everybody(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("expected a CUDA device for `--device cuda`, but torch finds none here.")
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = arguments.tf32
    with torch.inference_mode():
        if arguments.memory:
            predict_once(arguments.memory)
            return
        print(
            f"torch {torch.__version__}, {machine(arguments.device, arguments.threads)}, {arguments.dtype}"
            f"{', TF32' if arguments.tf32 else ''}; medians in milliseconds\n"
        )
        if arguments.growth:
            report_growth(arguments.seconds, arguments.growth)
        else:
            show(table(wanted(arguments), arguments.seconds))


if __name__ == "__main__":
    main()
