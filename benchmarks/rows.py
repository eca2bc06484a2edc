"""Does what an input gets depend on who shares its batch?

    python benchmarks/rows.py                              this processor, and what others have of its instructions
    python benchmarks/rows.py --networks mlp --instructions AVX2 --threads 1

Every row of batches of 1 to 65 rows is held against the same row alone, to the last bit: the deterministic logits and
features, and the members' logits by each strategy that is given. For each network, instruction set and thread count
the table says in how many of the sizes all rows are as they are alone (*alone*), in how many as they are in the largest
batch (*together*), and whether a row's place in a batch matters (*place*).
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

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 23, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65)
MEMBERS = 12
NETWORKS = {
    "mlp": CASES["mlp"],
    "convnet": CASES["convnet"],
    "resnet": CASES["resnet"],
    "transformer": Case(TransformerNet, (28, 28), samples=20, batches=()),
    "recurrent": Case(RecurrentNet, (28, 28), samples=20, batches=()),
    "dropconnect": Case(partial(DropConnectMLP, 784), (784,), samples=20, batches=()),
    "text_cnn": Case(partial(TextCNN, 8000), (24,), samples=20, batches=()),
    "table": Case(partial(MLP, 30, (128, 64), rates=(0.3, 0.3), num_classes=2), (30,), samples=20, batches=()),
}
Answer = Callable[[Tensor], Tensor]  # [B, ...] to [B, ...]


def inputs(name: str, rows: int) -> Tensor:
    """Of a network, numbers or tokens."""
    if name == "text_cnn":
        return torch.randint(2, 8000, (rows, *NETWORKS[name].shape)).float()
    return NETWORKS[name].inputs(rows)


def compare(answer: Answer, x: Tensor) -> str:
    """Say in how many sizes rows are as alone, and as in the largest batch, and whether their place matters."""
    alone = torch.cat([answer(row) for row in x.split(1)])
    most = answer(x)
    sizes = [size for size in SIZES if size <= len(x)]
    found = {size: answer(x[:size]) for size in sizes}
    as_alone = sum(torch.equal(found[size], alone[:size]) for size in sizes)
    together = [size for size in sizes if torch.equal(found[size], most[:size])]
    moved = [size for size in sizes if not torch.equal(answer(x[:size].flip(0)).flip(0), found[size])]
    apart = [size for size in sizes if size not in together]
    return f"{as_alone}/{len(sizes)} alone; {len(together)} together, but {apart}; place {moved}"


def child(name: str, threads: int) -> dict[str, str]:
    """All ways of answering of one network."""
    torch.set_num_threads(threads)
    case = NETWORKS[name]
    x, network = inputs(name, max(SIZES)), case.network()
    tap = FeatureTap(network, x[:1])

    def deterministic(x: Tensor) -> Tensor:
        logits, features = tap(x)
        return torch.cat([logits, features], 1)

    lines = {"deterministic": compare(deterministic, x)}
    chosen = Committee(network, x[:1], num_samples=MEMBERS, measure_seconds=0.1)
    for strategy in dict.fromkeys(
        step.strip().split()[0] for step in (chosen.strategy + ", chain, thinned, traced, fold").split(",")
    ):
        try:
            committee = Committee(network, x[:1], num_samples=MEMBERS, strategy=strategy)
        except Exception:
            continue
        lines[strategy] = compare(lambda x, committee=committee: committee(x).transpose(0, 1), x)
    return lines


def main() -> None:
    """Compare in child processes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=list(INSTRUCTIONS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="torch threads")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with torch.inference_mode():
            print(json.dumps(child(arguments.child[0], int(arguments.child[1]))))
        return
    lines = [["network", "instructions", "threads", "way", "rows"]]
    for network in arguments.networks:
        for name in arguments.instructions:
            for threads in arguments.threads:
                command = [sys.executable, __file__, "--child", network, str(threads)]
                done = subprocess.run(
                    command, env=os.environ | INSTRUCTIONS[name], check=True, stdout=subprocess.PIPE, text=True
                )
                for way, said in json.loads(done.stdout).items():
                    lines.append([network, name, str(threads), way, said])
                    print(" ".join(lines[-1]), file=sys.stderr, flush=True)
    show(lines)


if __name__ == "__main__":
    main()
