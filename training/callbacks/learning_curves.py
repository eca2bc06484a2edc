"""Curves: what a network achieves without dropout on training and validation rows, epoch by epoch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from dubio.models.inputs import encoding
from dubio.training.classifier import eval_mode
from dubio.training.data.module import TensorDataModule
from dubio.training.splits.random_splits import SplitName
from dubio.uncertainty.detection.measures import single

BATCH = 500


def logits(network: nn.Module, data: TensorDataModule, split: SplitName) -> tuple[Tensor, Tensor]:
    """The eval-mode logits of a split and its labels; the network's modes are as before afterwards."""
    raw, labels = data.raw(split)
    place = encoding.place(network)
    encoded = encoding.encoder(data.input, dtype=place["dtype"])(raw)
    with torch.inference_mode(), eval_mode(network):
        batches = encoded.split(BATCH)
        return torch.cat([single(network(batch.to(place["device"]))).cpu() for batch in batches]), labels


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
