"""The same two answers served by MLServer over the Open Inference Protocol, with its adaptive batching.

python benchmarks/peer_mlserver.py PORT
"""

from __future__ import annotations

import asyncio
import sys

import torch
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from dubio.models import MLP

SAMPLES = 100
BATCH, SECONDS = 64, 0.001


class Deterministic(MLModel):
    """Probabilities of the network in eval mode."""

    async def load(self) -> bool:
        """Build the network."""
        self.network = MLP().eval()
        return True

    @torch.inference_mode()
    def compute(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name, for a batch."""
        return {"probabilities": self.network(x).softmax(-1)}

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Translate."""
        x = torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0])).float()
        outputs = [NumpyCodec.encode_output(name, value.numpy()) for name, value in self.compute(x).items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class MonteCarlo(Deterministic):
    """Mean and standard deviation over passes with dropout on."""

    async def load(self) -> bool:
        """Build the network, in train mode for ever."""
        self.network = MLP().train()
        return True

    @torch.inference_mode()
    def compute(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name, for a batch."""
        probs_KBC = torch.stack([self.network(x).softmax(-1) for _ in range(SAMPLES)])
        return {"mean": probs_KBC.mean(0), "std": probs_KBC.std(0)}


async def main(port: int) -> None:
    """Serve both in this process."""
    torch.set_num_threads(2)
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 100, metrics_port=port + 200, parallel_workers=0, debug=False
    )
    kinds = {"deterministic": Deterministic, "mc": MonteCarlo}
    await MLServer(settings).start(
        [
            ModelSettings(name=name, implementation=kind, max_batch_size=BATCH, max_batch_time=SECONDS)
            for name, kind in kinds.items()
        ]
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
