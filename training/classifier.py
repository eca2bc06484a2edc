"""The Lightning module that trains any network as a classifier."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau

# Set by Lightning's command line while it builds the module: the configuration, as plain data.
from pytorch_lightning.core.mixins.hparams_mixin import _given_hyperparameters
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from dubio.models.checkpoint import data_record, schema
from dubio.models.checkpoint.data_record import DataRecord
from dubio.models.inputs import encoding
from dubio.training import network_sizes, parameter_groups, weighting
from dubio.training.class_figures import ClassFigures
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import NetworkMismatch, TrainingError
from dubio.training.lr_schedule import WarmupCosine
from dubio.training.weighting import ClassWeights

Batch = tuple[Tensor, Tensor]


class Classifier(LightningModule):
    """Trains a network with cross-entropy and logs loss, accuracy and macro-F1.

    Args:
        network: Takes normalised inputs `[B, *shape]` and returns logits `[B, C]`. It should hold dropout:
            that is where the uncertainty of the served model comes from.
        optimizer: Builds the optimizer. Its weight decay is applied to weight matrices and kernels only, not
            to biases, normalisation layers, embeddings and positions.
        scheduler: Builds the learning-rate schedule, if there is to be one.
        scheduler_interval: Whether the schedule advances after every `epoch` or after every `step`; a
            `WarmupCosine` always does after every step.
        label_smoothing: Share of each training label that is spread evenly over all classes (Szegedy 2016).
            Losses are reported without it, except for `train_loss`.
        class_weights: How much a row of each class counts in the training, by name (1 where it is left out), or
            `balanced`: the rows of every class count alike together. The validation loss is weighted alike, because it
            chooses the epoch; the test loss is not. Probabilities lean towards the classes that count more.
        logit_norm: Temperature of LogitNorm, the paper's being 0.04: the training and validation losses are those of
            logits f / (temperature |f|), so that the network cannot become surer by longer logits alone, which tells
            strangers apart better and costs up to a percent of accuracy (Wei 2022). None for logits as they are.
    """

    train_weights_C: Tensor | None
    val_weights_C: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable = AdamW,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = None,
        logit_norm: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise TrainingError(f"Expected `label_smoothing` to be a share in [0, 1), but got {label_smoothing}.")
        if logit_norm is not None and not 0 < logit_norm < math.inf:
            raise TrainingError(
                f"Expected `logit_norm` to be a positive temperature, such as 0.04, but got {logit_norm}; leave it out "
                "for logits as they are."
            )
        if _given_hyperparameters.get() is not None:
            # Only the configuration is plain data. The live objects that a Python caller passes would end up
            # pickled in the checkpoint, which then could not be read with `weights_only=True`.
            self.save_hyperparameters()
        self.network = network
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.logit_norm = logit_norm
        # What `setup` finds in the data is no part of a checkpoint.
        self.register_buffer("train_weights_C", None, persistent=False)
        self.register_buffer("val_weights_C", None, persistent=False)
        self.val_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()
        self.confusions = nn.ModuleDict()
        self.tested: ClassFigures | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits_BC: Tensor = self.network(x)
        return logits_BC

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, labels_B = batch
        loss = _loss(self._normed(self(x)), labels_B, self.train_weights_C, self.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(x))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val", self.val_accuracy, self.val_weights_C)

    def on_validation_epoch_end(self) -> None:
        self._figures("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test", self.test_accuracy)

    def on_test_epoch_end(self) -> None:
        self.tested = self._figures("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Deterministic probabilities `[B, C]`, without temperature."""
        return F.softmax(self(batch[0]), dim=-1)

    def _evaluate(self, batch: Batch, stage: str, accuracy: MeanMetric, weights_C: Tensor | None = None) -> None:
        x, labels_B = batch
        logits_BC = self(x)
        accuracy.update((logits_BC.argmax(dim=-1) == labels_B).float())
        if stage not in self.confusions:
            metric = MulticlassConfusionMatrix(logits_BC.shape[1], validate_args=False)
            self.confusions[stage] = metric.to(logits_BC.device)
        self._confusion(stage).update(logits_BC, labels_B)
        loss = _loss(self._normed(logits_BC) if stage == "val" else logits_BC, labels_B, weights_C)
        self.log(f"{stage}_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(x))
        self.log(f"{stage}_accuracy", accuracy, prog_bar=True, batch_size=len(x))

    def _normed(self, logits_BC: Tensor) -> Tensor:
        """The logits that the loss sees."""
        return logits_BC if self.logit_norm is None else _logit_norm(logits_BC, self.logit_norm)

    def _figures(self, stage: str) -> ClassFigures:
        """Of all rows of the epoch, in all processes."""
        confusion = self._confusion(stage)
        figures = ClassFigures.of_confusion(confusion.compute().cpu())
        confusion.reset()
        self.log(f"{stage}_macro_f1", figures.macro_f1, sync_dist=True)
        return figures

    def _confusion(self, stage: str) -> Metric:
        return cast("Metric", self.confusions[stage])

    def configure_optimizers(self) -> Any:
        decayed = list(parameter_groups.weights(self))
        known = {id(parameter) for parameter in decayed}
        others = [each for each in self.parameters() if each.requires_grad and id(each) not in known]
        # Biases, normalisations and embeddings do not overfit; shrinking them only hurts.
        optimizer = self.optimizer([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        settings: dict[str, Any] = {"scheduler": scheduler, "interval": self.scheduler_interval}
        if isinstance(scheduler, WarmupCosine):
            settings["interval"] = "step"
            scheduler.plan(self.trainer.estimated_stepping_batches)
        if isinstance(scheduler, ReduceLROnPlateau):
            settings["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._require_training_mode()
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, TensorDataModule):
            check_fit(self.network, datamodule)
            self.train_weights_C, self.val_weights_C = weighting.of(self.class_weights, datamodule)
        elif self.class_weights is not None and stage == "fit":
            raise TrainingError(
                "Expected a data module of Dubio's for `class_weights`, which counts the rows of each class, but got "
                "none; leave them out, or weight the loss in a classifier of your own."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds how the rows were divided and encoded; see `dubio.models.checkpoint.data_record`."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, TensorDataModule):
            checkpoint[data_record.KEY] = data.record.model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses data that are divided or encoded in another way than those of the checkpoint."""
        data = getattr(self._trainer, "datamodule", None)
        held = checkpoint.get(schema.KEY) or checkpoint.get(data_record.KEY)
        if isinstance(data, TensorDataModule) and held:
            record = DataRecord.of(held)
            if record.divisions:
                data.refuse_other(record)

    def _require_training_mode(self) -> None:
        frozen = [name or "the network" for name, module in self.network.named_modules() if not module.training]
        if frozen:
            raise TrainingError(
                f"Expected every module of the network to be in training mode, but {len(frozen)} "
                f"({', '.join(frozen[:3])}) are in eval mode, so their dropout would be off while they learn; "
                "call `network.train()` before `fit`."
            )


def _loss(logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor | None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, in which each row counts as its class does."""
    if weights_C is None:
        return F.cross_entropy(logits_BC, labels_B, label_smoothing=smoothing)
    # Not divided by the weights of the batch, as torch does: there a rare row would count less the more there are.
    loss_B = F.cross_entropy(logits_BC, labels_B, label_smoothing=smoothing, reduction="none")
    return (weights_C[labels_B] * loss_B).mean()


def _logit_norm(logits_BC: Tensor, temperature: float) -> Tensor:
    """Logits of length 1 / temperature, as the authors compute them; those that are all 0 stay so."""
    length_B1: Tensor = torch.linalg.vector_norm(logits_BC, dim=-1, keepdim=True)
    return logits_BC / (length_B1 + 1e-7) / temperature


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts every module into eval mode; afterwards each is in its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_fit(network: nn.Module, data: TensorDataModule) -> None:
    """Tries the network on two blank rows, so that a misfit shows before the first epoch.

    Raises:
        NetworkMismatch: If it does not take the data's shape, or does not give one logit a class.
    """
    blank = encoding.blank(data.input, rows=2, **encoding.place(network))
    try:
        with torch.no_grad(), eval_mode(network):
            logits_BC = network(blank)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise NetworkMismatch(
            f"The network {type(network).__name__} does not take inputs of shape {list(data.input.shape)}, which "
            f"is what {data.title} has: {error}. Change its sizes in `model.init_args.network.init_args`: "
            f"{_sizes(network, data)}."
        ) from error
    expected = (2, len(data.classes))
    if not isinstance(logits_BC, Tensor) or tuple(logits_BC.shape) != expected:
        returned = list(logits_BC.shape) if isinstance(logits_BC, Tensor) else type(logits_BC).__name__
        if hasattr(logits_BC, "logits"):
            raise NetworkMismatch(
                f"Expected the network {type(network).__name__} to return logits, but got {returned}, which names "
                "them; wrap it in dubio.models.SequenceClassifier, or take dubio.models.TransformersNet."
            )
        raise NetworkMismatch(
            f"Expected the network {type(network).__name__} to return logits of shape {list(expected)} for two "
            f"rows, one for each of the {expected[1]} classes of {data.title}, but got {returned}; set "
            f"`model.init_args.network.init_args.num_classes: {expected[1]}`."
        )


def _sizes(network: nn.Module, data: TensorDataModule) -> str:
    """The arguments of a network that the data decide, as they would be right."""
    decided = {name: network_sizes.of(name, None, data) for name in inspect.signature(type(network)).parameters}
    right = ", ".join(f"{name}: {size}" for name, size in decided.items() if size is not None)
    return f"{right}, or leave them out" if right else "they are arguments of your own"
