"""Networks to measure, and everybody who predicts with Monte Carlo dropout."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dubio.models import MLP, ConvNet, ResNet, TextCNN
from dubio.uncertainty import Committee

Predict = Callable[[Tensor], Tensor]


class Transformer(nn.Module):
    """Four layers of width 128 over 64 positions, dropout .1 on attention weights and behind every sub-layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(16, 128), nn.Parameter(torch.randn(64, 128))
        layer = nn.TransformerEncoderLayer(128, 4, 512, 0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, 10]`` of sequences ``[B, 64, 16]``."""
        logits_BC: Tensor = self.head(self.body(self.embed(x) + self.position).mean(1))
        return logits_BC


@dataclass(frozen=True)
class Case:
    """One network under test.

    Attributes:
        build: makes the network.
        shape: of one input.
        samples: T, how many members or passes.
        batches: batch sizes to measure.
        device: where it runs.
        dtype: of weights and inputs.
        vocabulary: how many tokens there are where an input is a text; otherwise 0.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int
    batches: tuple[int, ...]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    vocabulary: int = 0

    def network(self) -> nn.Module:
        """In eval mode, always with the same weights."""
        torch.manual_seed(0)
        return self.build().eval().requires_grad_(False).to(self.device, self.dtype)

    def inputs(self, rows: int) -> Tensor:
        """Normal numbers ``[rows, *shape]``; or as many texts of 3 to 14 random words, filled up with zeros."""
        if self.vocabulary:
            words = torch.randint(3, 15, (rows, 1))
            words[0] = 9  # one text alone is one of average length
            tokens = torch.randint(1, self.vocabulary, (rows, *self.shape))
            return (tokens * (torch.arange(self.shape[0]) < words)).to(self.device, torch.float32)
        return torch.randn(rows, *self.shape).to(self.device, self.dtype)


def resnet18() -> nn.Module:
    """As wide and deep as ResNet-18, for images of 32 x 32 pixels."""
    return ResNet(in_channels=3, widths=(64, 128, 256, 512), blocks=2)


def text_cnn() -> nn.Module:
    """That of `configs/clinc150.yaml`."""
    return TextCNN(padding=0.0, num_classes=150)


CASES = {
    "mlp": Case(MLP, (784,), samples=100, batches=(1, 8, 32, 128)),
    "convnet": Case(ConvNet, (1, 28, 28), samples=20, batches=(1, 8, 32)),
    "transformer": Case(Transformer, (64, 16), samples=50, batches=(1, 8, 32)),
    "text_cnn": Case(text_cnn, (32,), samples=64, batches=(1, 8, 32), vocabulary=8000),
    "resnet": Case(resnet18, (3, 32, 32), samples=20, batches=(1, 8)),
}


def committee(case: Case, samples: int) -> Predict:
    """Dubio's."""
    return Committee(case.network(), case.inputs(1), num_samples=samples)


def textbook_loop(case: Case, samples: int) -> Predict:
    """What everyone writes: dropout in train mode, one pass after the other.

    Attention drops out by its own layer's mode and not by a dropout module's, so that these are switched too.
    """
    network = case.network()
    _drop_out(network)
    return lambda x: torch.stack([network(x) for _ in range(samples)])


def repeated_batch(case: Case, samples: int) -> Predict:
    """The same in one pass over the batch repeated T times."""
    network = case.network()
    _drop_out(network)
    return lambda x: network(x.repeat(samples, *[1] * (x.ndim - 1))).unflatten(0, (samples, len(x)))


def _drop_out(network: nn.Module) -> None:
    attending = nn.MultiheadAttention | nn.TransformerEncoderLayer
    for module in network.modules():
        module.training = "Dropout" in type(module).__name__ or isinstance(module, attending)


def baal(case: Case, samples: int) -> Predict:
    """Baal: dropout modules replaced by ones that always drop, and a loop."""
    from baal.bayesian.dropout import patch_module

    network = patch_module(case.network(), inplace=False).eval()
    return lambda x: torch.stack([network(x) for _ in range(samples)])


def torch_uncertainty(case: Case, samples: int) -> Predict:
    """TorchUncertainty: the wrapper that its documentation shows, on the batch repeated T times."""
    from torch_uncertainty.methods import mc_dropout

    network = mc_dropout(case.network(), samples).eval()
    return lambda x: network(x).unflatten(0, (samples, len(x)))


def lightning_uq_box(case: Case, samples: int) -> Predict:
    """Lightning UQ Box: its classification module's prediction step."""
    from lightning_uq_box.uq_methods import MCDropoutClassification

    method = MCDropoutClassification(case.network(), samples, nn.CrossEntropyLoss())
    return lambda x: method.predict_step(x)["logits"].movedim(-1, 0)


PEERS = {"baal": baal, "torch_uncertainty": torch_uncertainty, "lightning_uq_box": lightning_uq_box}


def everybody() -> dict[str, Callable[[Case, int], Predict]]:
    """Everyone who can be imported here."""
    here = {name: build for name, build in PEERS.items() if importlib.util.find_spec(name) is not None}
    return {"textbook loop": textbook_loop, "repeated batch": repeated_batch, **here, "committee": committee}
