"""Curves: what a network achieves without dropout on training and validation rows, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from dubio.models.inputs import encoding
from dubio.training.data.module import TensorDataModule
from dubio.training.data.splits import SplitName

BATCH = 500
BINS = 15


@dataclass(frozen=True)
class Quality:
    """Figures of one split.

    Attributes:
        accuracy: share of right labels.
        nll: mean negative log-likelihood in nats.
        ece: expected calibration error over 15 bins of equal width (Naeini 2015).
    """

    accuracy: float
    nll: float
    ece: float

    @staticmethod
    def of(probs_BC: Tensor, labels_B: Tensor) -> Quality:
        """Of probabilities; one that rounds to 0 counts as the smallest number."""
        chosen_B = probs_BC.gather(1, labels_B.unsqueeze(1)).clamp(min=torch.finfo(probs_BC.dtype).tiny)
        ece = multiclass_calibration_error(probs_BC, labels_B, num_classes=probs_BC.shape[1], n_bins=BINS, norm="l1")
        right_B = probs_BC.argmax(1) == labels_B
        return Quality(float(right_B.float().mean()), float(-chosen_B.log().mean()), float(ece))


def logits(network: nn.Module, data: TensorDataModule, split: SplitName) -> tuple[Tensor, Tensor]:
    """The eval-mode logits of a split and its labels; the network's modes are as before afterwards."""
    raw, labels = data.raw(split)
    encoded = encoding.encoder(data.input)(raw)
    device = next(network.parameters()).device
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            answers = [network(batch.to(device)).cpu() for batch in encoded.split(BATCH)]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(answers), labels


class Curves(Callback):
    """Keeps loss and accuracy after each epoch.

    Lightning's own `train_loss` is that of thinned networks, which says nothing about overfitting: as long as dropout
    is on it may be higher than the validation loss. These are both of the whole network.

    Attributes:
        rows: One an epoch: `epoch`, and `loss` and `accuracy` of `train` and `validation`.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        splits: tuple[SplitName, ...] = ("train", "validation")
        for split in splits:
            logits_BC, labels_B = logits(pl_module.network, data, split)  # type: ignore[arg-type]
            row[f"{split}_loss"] = float(F.cross_entropy(logits_BC, labels_B))
            row[f"{split}_accuracy"] = float((logits_BC.argmax(1) == labels_B).float().mean())
        self.rows.append(row)
