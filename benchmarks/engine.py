"""How much faster is the committee than the textbook loop?

    python benchmarks/engine.py                        MLP and ConvNet, all batch sizes
    python benchmarks/engine.py --networks mlp --batches 1

Contenders are interleaved in one run, so that a slow moment of the machine hits all of them: each in turn is called a
few times in a row, as a server would, and the first of those calls, with caches that another contender left, is not
counted. The medians and the ratio to the textbook loop are printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor, nn

from models import MLP, ConvNet
from uncertainty import Committee


@dataclass(frozen=True)
class Case:
    """One network under test.

    Attributes:
        build: makes the network.
        shape: of one input.
        samples: T, how many members or passes.
        batches: batch sizes to measure.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int
    batches: tuple[int, ...]


CASES = {
    "mlp": Case(MLP, (784,), samples=100, batches=(1, 8, 32, 128)),
    "convnet": Case(ConvNet, (1, 28, 28), samples=20, batches=(1, 8, 32)),
}


def textbook_loop(network: nn.Module, samples: int) -> Callable[[Tensor], Tensor]:
    """What everyone writes: dropout modules in train mode, one pass after the other."""
    dropouts = [module for module in network.modules() if "Dropout" in type(module).__name__]
    for module in dropouts:
        module.train()
    return lambda x: torch.stack([network(x) for _ in range(samples)])


def repeated_batch(network: nn.Module, samples: int) -> Callable[[Tensor], Tensor]:
    """The same in one pass over the batch repeated T times."""
    for module in network.modules():
        module.train("Dropout" in type(module).__name__)
    return lambda x: network(x.repeat(samples, *[1] * (x.ndim - 1))).unflatten(0, (samples, len(x)))


def contenders(case: Case) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name to prediction function; each has its own copy of the same weights."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return case.build().eval().requires_grad_(False)

    return {
        "deterministic": network(),
        "textbook loop": textbook_loop(network(), case.samples),
        "repeated batch": repeated_batch(network(), case.samples),
        "committee": Committee(network(), torch.zeros(1, *case.shape), num_samples=case.samples),
    }


def measure(
    functions: dict[str, Callable[[Tensor], Tensor]], x: Tensor, seconds: float, calls: int = 5
) -> dict[str, float]:
    """Median milliseconds of each function; they take turns until the time is up, at least three each."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["committee"]) < 3 * calls:
        for name, function in functions.items():
            function(x)
            for _ in range(calls):
                start = time.perf_counter()
                function(x)
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, help="batch sizes; by default those of the network")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each cell")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    lines = []
    with torch.inference_mode(), Progress(transient=True) as bar:
        cells = [(name, batch) for name in arguments.networks for batch in arguments.batches or CASES[name].batches]
        task = bar.add_task("Measuring", total=len(cells))
        ready = {name: contenders(CASES[name]) for name in arguments.networks}
        for name, batch in cells:
            x = torch.randn(batch, *CASES[name].shape)
            medians = measure(ready[name], x, arguments.seconds)
            bar.advance(task)
            row = [name, str(CASES[name].samples), str(batch), *(f"{value:.2f}" for value in medians.values())]
            row.append(f"**{medians['textbook loop'] / medians['committee']:.1f}x**")
            lines.append(row)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {platform.machine()}; medians in milliseconds\n")
    header = ["network", "T", "batch", *ready[arguments.networks[0]], "committee over loop"]
    for row in [header, ["---"] * len(header), *lines]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
