"""Is there a batch size that costs more than it should?

    python benchmarks/cliffs.py                              this processor, and what others have of its instructions
    python benchmarks/cliffs.py --networks mlp --instructions AVX2 --threads 1 --rows 65
    python benchmarks/cliffs.py --networks mlp --ask 8       calls of a few members, as adaptive sampling makes
    python benchmarks/cliffs.py --networks transformer --threads 2 --sizes 1 2 3 4 5 8 9 16 17 32 33 --rounds 3

For every number of rows B from 1 on, or those of `--sizes` where calls take long, the cost of one call is held against
the cheapest way to answer B rows by calls of other sizes, alone or several, padded or not. The worst ratio is printed
for each network, instruction set and number of threads; above 1.3 it is a cliff. Instruction sets are those of oneDNN,
torch and MKL, told to child processes by their environment variables; MKL follows on Intel's processors alone, and no
other processor than this one is measured.

A size's cost is the least over rounds, each of which calls every size once in an order of its own, so that a slow
moment of the machine, which only adds, hits few calls of a size. With one thread processor time counts, which other
processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from contenders import CASES
from engine import show

from dubio.uncertainty import Committee

# By name: the environment that lets each library use these instructions and no newer ones.
INSTRUCTIONS = {
    "SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "AVX": {"ONEDNN_MAX_CPU_ISA": "AVX", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "AVX"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "all": {},
}
SHOWN = (1, 2, 4, 8, 16, 17, 32, 64, 65, 128, 256)


def costs(
    network: str, samples: int, asked: int | None, sizes: Sequence[int], rounds: int, threads: int
) -> tuple[str, dict[int, float]]:
    """Measure milliseconds by number of rows; also say what was chosen."""
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    case = CASES[network]
    committee = Committee(case.network(), case.inputs(1), num_samples=samples)
    x, order = case.inputs(max(sizes)), list(sizes)
    times: dict[int, list[float]] = {size: [] for size in order}
    for _ in range(rounds):
        random.shuffle(order)
        for size in order:
            part = x[:size]
            committee(part, asked)
            start = clock()
            committee(part, asked)
            times[size].append(1e3 * (clock() - start))
    return committee.strategy, {size: min(values) for size, values in times.items()}


def cheapest(cost: Mapping[int, float], size: int) -> float:
    """Milliseconds of the cheapest way to answer so many rows by calls of other sizes."""
    largest = max(cost)
    best = {0: 0.0}
    # `padded[n]`: of one call that answers n rows, by a batch of n or more, but not of the size itself.
    padded: dict[int, float] = {}
    for rows in range(largest, 0, -1):
        here = cost[rows] if rows in cost and rows != size else float("inf")
        padded[rows] = min(here, padded.get(rows + 1, float("inf")))
    for rows in range(1, size + 1):
        best[rows] = min(padded[part] + best[rows - part] for part in range(1, rows + 1))
    return best[size]


def main() -> None:
    """Measure in child processes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=["mlp", "convnet"])
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=list(INSTRUCTIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="torch threads")
    parser.add_argument("--samples", type=int, help="T; by default that of the network")
    parser.add_argument("--ask", type=int, metavar="MEMBERS", help="of a call; by default all")
    parser.add_argument("--rows", type=int, default=256, help="the largest batch; each size up to it is measured")
    parser.add_argument(
        "--sizes", nargs="+", type=int, help="batch sizes to measure instead of all, the largest uncounted"
    )
    parser.add_argument("--rounds", type=int, default=5, help="calls of each size")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = sorted(set(arguments.sizes or range(1, arguments.rows + 1)))
    if arguments.child:
        network, threads = arguments.child
        with torch.inference_mode():
            samples = arguments.samples or CASES[network].samples
            print(json.dumps(costs(network, samples, arguments.ask, sizes, arguments.rounds, int(threads))))
        return
    shown = [size for size in SHOWN if size in sizes]
    lines = [["network", "instructions", "threads", "worst ratio", "at rows", *map(str, shown), "strategy"]]
    for network in arguments.networks:
        for name in arguments.instructions:
            for threads in arguments.threads:
                command = [sys.executable, __file__, "--child", network, str(threads), "--sizes", *map(str, sizes)]
                command += ["--rounds", str(arguments.rounds)]
                command += ["--samples", str(arguments.samples)] if arguments.samples else []
                command += ["--ask", str(arguments.ask)] if arguments.ask else []
                environment = os.environ | INSTRUCTIONS[name]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                strategy, measured = json.loads(done.stdout)
                cost = {int(size): value for size, value in measured.items()}
                ratios = {size: value / cheapest(cost, size) for size, value in cost.items() if size < sizes[-1]}
                worst = max(ratios, key=ratios.__getitem__)
                numbers = [f"{cost[size]:.2f}" for size in shown]
                lines.append([network, name, str(threads), f"**{ratios[worst]:.2f}**", str(worst), *numbers, strategy])
                print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    print(f"torch {torch.__version__}; milliseconds by rows\n")
    show(lines)


if __name__ == "__main__":
    main()
