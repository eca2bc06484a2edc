"""Run by `test_instruction_sets` in a process of its own: which calls reorder anything, by oneDNN's own log."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch.backends import mkldnn

from dubio.models import MLP, ConvNet
from dubio.uncertainty import Committee
from dubio.uncertainty.execution import kernels

# Odd widths, as thinned members have them, and the usual ones.
NETWORKS = {
    "mlp": (lambda: MLP(in_features=20, widths=(150, 96), num_classes=5, rates=(0.5, 0.3)), (20,)),
    "convnet": (
        lambda: ConvNet(1, image_size=8, widths=(12, 16), rates=(0.3, 0.4), dense=24, num_classes=5),
        (1, 8, 8),
    ),
}


def main(network: str, strategy: str, threads: int, rows: list[int]) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # oneDNN's kernels wherever there are any, whatever is faster here.
    kernels.speedup = lambda *_: (1 + kernels.MIN_SPEEDUP) / 2
    build, shape = NETWORKS[network]
    committee = Committee(build().eval(), torch.randn(1, *shape), num_samples=10, strategy=strategy, measure_seconds=60)
    say = ctypes.CDLL(None).puts  # in one stream with the log, whose lines it stands between
    for count in rows:
        x = torch.randn(count, *shape)
        committee(x)  # a first call may ask what there is
        say(f"rows {count}".encode())
        with mkldnn.verbose(mkldnn.VERBOSE_ON):
            committee(x)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(each) for each in sys.argv[4:]])
