"""Does what an input gets depend on who shares its batch?

    python benchmarks/rows.py                              this processor, and what others have of its instructions
    python benchmarks/rows.py --networks mlp --instructions AVX2 --threads 1

Rows of batches of 1 to 65 rows are held against the same rows alone and in the largest batch, to the last bit: logits
and features of the deterministic pass, and the members' logits by each strategy that runs the network. For each the
table says in how many of the sizes all rows are as they are alone, at which sizes they are not as in the largest batch,
and at which sizes a row's place in the batch matters. Instruction sets are hidden as in `benchmarks/cliffs.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
from cliffs import INSTRUCTIONS
from contenders import CASES, Case
from engine import show
from torch import Tensor

from dubio.models import MLP, DropConnectMLP, RecurrentNet, TextCNN, TransformerNet
from dubio.uncertainty import Committee, FeatureTap
from dubio.uncertainty.errors import UncertaintyError

SIZES = (*range(1, 10), 12, 15, 16, 17, 23, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65)
MEMBERS = 12
STRATEGIES = ("chain", "thinned", "fold")
TOKENS = 8000
NETWORKS = {
    "mlp": CASES["mlp"],
    "convnet": CASES["convnet"],
    "resnet": CASES["resnet"],
    "transformer": Case(TransformerNet, (28, 28), samples=MEMBERS, batches=()),
    "recurrent": Case(RecurrentNet, (28, 28), samples=MEMBERS, batches=()),
    "dropconnect": Case(DropConnectMLP, (784,), samples=MEMBERS, batches=()),
    "text_cnn": Case(partial(TextCNN, TOKENS), (24,), samples=MEMBERS, batches=()),
    "table": Case(partial(MLP, 30, (128, 64), 2, (0.3, 0.3)), (30,), samples=MEMBERS, batches=()),
}


def compare(answer: Callable[[Tensor], Tensor], x: Tensor) -> list[str]:
    """Say in how many sizes rows are as alone, where not as in the largest batch, and where their place matters."""
    alone, most = torch.cat([answer(row) for row in x.split(1)]), answer(x)
    found = {size: answer(x[:size]) for size in SIZES}
    as_alone = sum(torch.equal(found[size], alone[:size]) for size in SIZES)
    apart = [size for size in SIZES if not torch.equal(found[size], most[:size])]
    moved = [size for size in SIZES if not torch.equal(answer(x[:size].flip(0)).flip(0), found[size])]
    return [f"{as_alone} of {len(SIZES)}", _list(apart), _list(moved)]


def _list(sizes: list[int]) -> str:
    return "all" if len(sizes) >= len(SIZES) - 1 else ", ".join(map(str, sizes)) or "none"


def child(name: str, threads: int, strategies: list[str]) -> dict[str, list[str]]:
    """Compare all ways to answer of one network."""
    torch.set_num_threads(threads)
    case = NETWORKS[name]
    network = case.network()
    x = torch.randint(2, TOKENS, (max(SIZES), *case.shape)).float() if name == "text_cnn" else case.inputs(max(SIZES))
    tap = FeatureTap(network, x[:1])

    def deterministic(x: Tensor) -> Tensor:
        logits, features = tap(x)
        return logits if features is None else torch.cat([logits, features], dim=1)

    lines = {"deterministic": compare(deterministic, x)}
    for strategy in strategies:
        try:
            committee = Committee(network, x[:1], num_samples=MEMBERS, strategy=strategy)
        except UncertaintyError:  # it cannot run this network
            continue
        lines[strategy] = compare(lambda x, ask=committee: ask(x).transpose(0, 1), x)
    return lines


def main() -> None:
    """Compare in child processes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=list(INSTRUCTIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="torch threads")
    parser.add_argument("--strategies", nargs="*", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with torch.inference_mode():
            print(json.dumps(child(arguments.child[0], int(arguments.child[1]), arguments.strategies)))
        return
    lines = [["network", "instructions", "threads", "way", "as alone", "not as in the largest batch", "place matters"]]
    for network in arguments.networks:
        for name in arguments.instructions:
            for threads in arguments.threads:
                command = [sys.executable, __file__, "--child", network, str(threads)]
                command += ["--strategies", *arguments.strategies]
                environment = os.environ | INSTRUCTIONS[name]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                for way, said in json.loads(done.stdout).items():
                    lines.append([network, name, str(threads), way, *said])
                    print(" | ".join(lines[-1]), file=sys.stderr, flush=True)
    print(f"torch {torch.__version__}\n")
    show(lines)


if __name__ == "__main__":
    main()
