"""The same two answers served by LitServe, with its batching.

python benchmarks/peer_litserve.py PORT
"""

# Without `from __future__ import annotations`: LitServe reads them, and takes what is a string for a query's field.

import sys
from typing import Any

import litserve
import torch

from dubio.models import MLP

SAMPLES = 100
BATCH, SECONDS = 64, 0.001


class Deterministic(litserve.LitAPI):
    """Probabilities of the network in eval mode."""

    def setup(self, device: str) -> None:
        """In a worker process of its own."""
        torch.set_num_threads(2)
        self.network = MLP().eval()

    def decode_request(self, request: dict[str, Any]) -> torch.Tensor:
        """One row a request."""
        return torch.tensor(request["instances"][0])

    @torch.inference_mode()
    def predict(self, x: torch.Tensor) -> Any:
        """For a batch."""
        return self.network(x).softmax(-1)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """As JSON."""
        return {"probabilities": output.tolist()}


class MonteCarlo(Deterministic):
    """Mean and standard deviation over passes with dropout on."""

    @torch.inference_mode()
    def predict(self, x: torch.Tensor) -> Any:
        """For a batch."""
        self.network.train()
        probs_KBC = torch.stack([self.network(x).softmax(-1) for _ in range(SAMPLES)])
        return torch.stack([probs_KBC.mean(0), probs_KBC.std(0)], 1)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """As JSON."""
        mean, std = output.tolist()
        return {"mean": mean, "std": std}


if __name__ == "__main__":
    apis = [
        Deterministic(max_batch_size=BATCH, batch_timeout=SECONDS, api_path="/deterministic"),
        MonteCarlo(max_batch_size=BATCH, batch_timeout=SECONDS, api_path="/mc"),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
