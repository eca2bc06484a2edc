"""What one writes by hand today: a FastAPI handler around the network, and the textbook loop for MC dropout.

python benchmarks/handmade.py PORT [DEVICE]
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from dubio.models import MLP

SAMPLES = 100

DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"

app = FastAPI()
network = MLP().eval().to(DEVICE)


class Request(BaseModel):
    """Rows of 784 numbers."""

    instances: list[list[float]]


@app.get("/ready")
def ready() -> dict[str, bool]:
    """Ready as soon as it answers."""
    return {"ready": True}


@app.post("/deterministic")
def deterministic(request: Request) -> dict[str, list[list[float]]]:
    """Probabilities of the network in eval mode."""
    with torch.inference_mode():
        return {"probabilities": network(torch.tensor(request.instances, device=DEVICE)).softmax(-1).tolist()}


# A network of its own, in train mode for ever: switching the other one would race with its requests.
sampled = MLP().train().to(DEVICE)


@app.post("/mc")
def mc(request: Request) -> dict[str, list[list[float]]]:
    """Mean and standard deviation over passes with dropout on."""
    x = torch.tensor(request.instances, device=DEVICE)
    with torch.inference_mode():
        probs_KBC = torch.stack([sampled(x).softmax(-1) for _ in range(SAMPLES)])
    return {"mean": probs_KBC.mean(0).tolist(), "std": probs_KBC.std(0).tolist()}


if __name__ == "__main__":
    torch.set_num_threads(1)  # requests run in threads of FastAPI's pool; theirs should not fight torch's
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
