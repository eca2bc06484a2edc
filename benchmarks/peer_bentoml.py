"""The same two answers served by BentoML, with its adaptive batching.

python benchmarks/peer_bentoml.py PORT
"""

from __future__ import annotations

import os
import sys

import bentoml
import numpy as np
import torch

from dubio.models import MLP

SAMPLES = 100
BATCH, MILLISECONDS = 64, 10_000


@bentoml.service(workers=1, traffic={"timeout": 60})
class Service:
    """Takes rows of 784 numbers."""

    def __init__(self) -> None:
        torch.set_num_threads(2)
        self.network = MLP().eval()
        # A network of its own, in train mode for ever: switching the other one would race with its requests.
        self.sampled = MLP().train()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=MILLISECONDS)
    def deterministic(self, instances: np.ndarray) -> np.ndarray:
        """Probabilities of the network in eval mode."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(instances).float()).softmax(-1).numpy()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=MILLISECONDS)
    def mc(self, instances: np.ndarray) -> np.ndarray:
        """Mean and standard deviation over passes with dropout on."""
        x = torch.from_numpy(instances).float()
        with torch.inference_mode():
            probs_KBC = torch.stack([self.sampled(x).softmax(-1) for _ in range(SAMPLES)])
        return torch.stack([probs_KBC.mean(0), probs_KBC.std(0)], 1).numpy()


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    command = ["bentoml", "serve", "peer_bentoml:Service", "--working-dir", here, "--host", "127.0.0.1"]
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.execv(sys.executable, [sys.executable, "-m", *command, "--port", sys.argv[1]])
