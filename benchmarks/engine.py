"""How much faster is the committee than the textbook loop, and what does it cost as members and rows grow?

    python benchmarks/engine.py                        the table: all networks and batch sizes
    python benchmarks/engine.py --networks mlp --batches 1
    python benchmarks/engine.py --growth engine.svg    cost against T and B, peak memory, and the figure

Contenders are interleaved in one run, so that a slow moment of the machine hits all of them: each in turn is called a
few times in a row, as a server would, and the first of those calls, with caches that another contender left, is not
counted. The medians and the ratio to the textbook loop are printed as a Markdown table. Peers (baal, torch-uncertainty)
take part where they are installed.
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
                start = time.perf_counter()
                function(x)
                times[name].append((time.perf_counter() - start) * 1e3)
                if time.perf_counter() > share:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def peak() -> float:
    """Billions of floating-point operations a second in a large product of two dense matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2e-6 * 1024**3 / measure({"product": lambda _: a @ b}, a, 1.0, 20)["product"]


def table(networks: Sequence[str], batches: Sequence[int] | None, seconds: float) -> list[list[str]]:
    """A row for each network and batch size."""
    lines = []
    with Progress(transient=True) as bar:
        cells = [(name, batch) for name in networks for batch in batches or CASES[name].batches]
        task = bar.add_task("Measuring", total=len(cells))
        ready: dict[str, dict[str, Predict]] = {}
        loading: dict[str, float] = {}
        for name in networks:
            case, start = CASES[name], time.perf_counter()
            ready[name] = {"deterministic": case.network()}
            for contender, build in everybody().items():
                start = time.perf_counter()
                ready[name][contender] = build(case, case.samples)
            loading[name] = time.perf_counter() - start  # the committee's, which is the last
        lines.append(["network", "T", "batch", *ready[networks[0]], "committee over loop"])
        for name, batch in cells:
            medians = measure(ready[name], torch.randn(batch, *CASES[name].shape), seconds)
            bar.advance(task)
            row = [name, str(CASES[name].samples), str(batch), *(f"{value:.2f}" for value in medians.values())]
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
            by_samples[samples] = measure(built, torch.randn(32, *case.shape), seconds, 3)
            bar.advance(task)
        built = {name: build(case, 100) for name, build in everybody().items()}
        for rows in ROWS:
            by_rows[rows] = measure(built, torch.randn(rows, *case.shape), seconds, 3)
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
    """Print what :func:`memory` reads."""
    samples, rows = LARGE
    case = CASES["mlp"]
    x = torch.randn(rows, *case.shape)
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, help="batch sizes; by default those of the network")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each cell")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--growth", metavar="FILE", help="measure growth instead, and draw it into this file")
    parser.add_argument("--memory", metavar="NAME", choices=everybody(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        if arguments.memory:
            predict_once(arguments.memory)
            return
        print(
            f"torch {torch.__version__}, {arguments.threads} threads, {platform.machine()}; medians in milliseconds; "
            f"a dense product {peak():.0f} GFLOP/s\n"
        )
        if arguments.growth:
            report_growth(arguments.seconds, arguments.growth)
        else:
            show(table(arguments.networks, arguments.batches, arguments.seconds))


if __name__ == "__main__":
    main()
