from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import ReduceLROnPlateau
from sklearn.metrics import f1_score, recall_score
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR

from dubio.models import MLP, ConvNet
from dubio.models.inputs import encoding
from dubio.training import Classifier, Digits, WarmupCosine
from dubio.training.classifier import check_fit
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import NetworkMismatch, TrainingError
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SPLITS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches", "ignore:Checkpoint directory"
)


def trainer(folder: Path, epochs: int = 1, **settings) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def test_it_learns(tmp_path: Path, network: nn.Module, digits: Digits):
    model = Classifier(network, optimizer=partial(AdamW, lr=3e-3))
    fit = trainer(tmp_path, epochs=15)
    fit.fit(model, digits)
    assert fit.callback_metrics["val_accuracy"] > 0.93
    assert fit.callback_metrics["train_loss"] < 0.6


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_logged_figures_are_those_of_the_whole_split_without_smoothing(
    tmp_path: Path, network: nn.Module, digits: Digits, smoothing: float
):
    model = Classifier(network, label_smoothing=smoothing)
    (logged,) = trainer(tmp_path).test(model, digits, verbose=False)
    x, labels = torch.cat([x for x, _ in digits.test_dataloader()]), digits.raw("test")[1]
    with torch.no_grad():
        logits = network.eval()(x)
    assert logged["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert logged["test_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


@pytest.mark.parametrize("frozen", ["", "body.3"])
def test_a_module_in_eval_mode_is_an_error_when_the_fit_starts(tmp_path: Path, digits: Digits, frozen: str):
    network = MLP(in_features=64)
    network.get_submodule(frozen).eval()
    with pytest.raises(TrainingError, match=r"in eval mode, so their dropout would be off.*network\.train\(\)"):
        trainer(tmp_path).fit(Classifier(network), digits)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (MLP(in_features=64, num_classes=7), r"\[2, 10\].*but got \[2, 7\].*num_classes: 10"),
        (MLP(in_features=63), r"not take .* \[1, 8, 8\].*network\.init_args`: in_features: 64, num_classes: 10,"),
        (ConvNet(image_size=28), r"ConvNet does not take inputs of shape \[1, 8, 8\]"),
        (nn.Identity(), r"but got \[2, 1, 8, 8\]"),
        (nn.LSTM(8, 10), "LSTM"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_an_error_when_the_fit_starts(
    tmp_path: Path, digits: Digits, network: nn.Module, message: str
):
    with pytest.raises(NetworkMismatch, match=message):
        trainer(tmp_path).fit(Classifier(network), digits)


def test_checking_changes_neither_modes_nor_weights(digits: Digits):
    network = ConvNet(image_size=8, widths=[4], rates=[0.2], dense=8)
    network.body[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_fit(network, digits)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_another_precision_is_tried_in_it(digits: Digits, dtype: torch.dtype):
    check_fit(ConvNet(image_size=8, widths=[4], rates=[0.2], dense=8).to(dtype), digits)


def test_weight_decay_spares_biases_and_normalisation():
    network = ConvNet(image_size=8, widths=[4], rates=[0.2], dense=8)
    optimizer = Classifier(network, optimizer=partial(AdamW, weight_decay=0.1)).configure_optimizers()
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        assert decay[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name


def test_a_parameter_that_is_frozen_is_not_optimized():
    network = MLP(in_features=64)
    network.head.requires_grad_(False)
    optimizer = Classifier(network).configure_optimizers()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


@pytest.mark.parametrize(("interval", "advances"), [("epoch", 2), ("step", 34)])
def test_the_schedule_advances_as_often_as_asked(
    tmp_path: Path, network: nn.Module, digits: Digits, interval, advances
):
    model = Classifier(
        network,
        optimizer=partial(SGD, lr=1.0),
        scheduler=partial(StepLR, step_size=1, gamma=0.5),
        scheduler_interval=interval,
    )
    fit = trainer(tmp_path, epochs=2)
    fit.fit(model, digits)
    assert fit.num_training_batches == 17
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5**advances)


def test_a_warm_up_and_cosine_is_planned_for_the_whole_training_step_by_step(
    tmp_path: Path, network: nn.Module, digits: Digits
):
    class Rates(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: SGD) -> None:
            self.seen.append(optimizer.param_groups[0]["lr"])

    scheduler = partial(WarmupCosine, warmup=0.5, floor=0.2)
    model = Classifier(network, optimizer=partial(SGD, lr=0.1), scheduler=scheduler, scheduler_interval="epoch")
    rates = Rates()
    trainer(tmp_path, epochs=2, callbacks=[rates]).fit(model, digits)
    rising = [0.1 * step / 18 for step in range(1, 18)]
    falling = [0.02 + 0.08 * (1 + math.cos(math.pi * step / 17)) / 2 for step in range(17)]
    assert rates.seen == pytest.approx(rising + falling)


def test_a_plateau_schedule_watches_what_it_is_told_to(tmp_path: Path, network: nn.Module, digits: Digits):
    scheduler = partial(ReduceLROnPlateau, monitor="val_loss", patience=0, threshold=1e9, mode="min")
    model = Classifier(network, optimizer=partial(SGD, lr=1.0), scheduler=scheduler)
    fit = trainer(tmp_path, epochs=3)
    fit.fit(model, digits)
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1**3)  # no epoch counts as better


def test_a_checkpoint_of_a_classifier_built_in_python_is_plain_data(tmp_path: Path, network: nn.Module, digits: Digits):
    fit = trainer(tmp_path)
    fit.fit(Classifier(network, optimizer=partial(AdamW, lr=1e-3)), digits)
    content = torch.load(fit.checkpoint_callback.best_model_path, weights_only=True)
    assert {name for name in content["state_dict"] if not name.startswith("network.")} == set()
    assert torch.equal(content["state_dict"]["network.head.weight"], network.head.weight)


class Fraud(TensorDataModule):
    """A row in 25 is fraud, which looks much like the others: the likeliest answer is always no."""

    title = "fraud"

    def read(self) -> Dataset:
        random, splits = np.random.default_rng(0), {}
        for name in SPLITS:
            labels = (np.arange(500) % 25 == 0).astype(np.int64)
            splits[name] = Examples((random.normal(size=(500, 4)) + 0.6 * labels[:, None]).astype(np.float32), labels)
        return Dataset.of_numbers(splits, ("no", "fraud"))


@pytest.mark.parametrize(
    ("weights", "sampling"),
    [(None, "shuffled"), ("balanced", "shuffled"), ({"fraud": 24.0}, "shuffled"), (None, "balanced")],
)
def test_a_rare_class_is_found_where_classes_count_alike(tmp_path: Path, weights, sampling: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(in_features=4, widths=[16], num_classes=2, rates=[0.1])
        data = Fraud(batch_size=50, sampling=sampling)
        model = Classifier(network, optimizer=partial(AdamW, lr=3e-3), class_weights=weights)
        fit = trainer(tmp_path, epochs=6)
        fit.fit(model, data)
        (logged,) = fit.test(model, data, verbose=False)
    x, labels = data.raw("test")
    with torch.no_grad():
        logits = network.eval()(encoding.encoder(data.input)(x))
    recall = recall_score(labels, logits.argmax(1), average=None)
    if weights is None and sampling == "shuffled":
        assert recall.tolist() == [1, 0]
        assert logged["test_accuracy"] == pytest.approx(0.96)
        assert model.tested.never_predicted == [1]
    else:
        assert min(recall) > 0.6
    assert model.tested.recall.tolist() == pytest.approx(recall)
    assert logged["test_macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))
    # The rows that measure and calibrate stay as they are, and so does the test loss.
    assert logged["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    # The epoch is chosen for what was trained.
    x, labels = data.raw("validation")
    with torch.no_grad():
        logits = network(encoding.encoder(data.input)(x))
    by_class = [F.cross_entropy(logits[labels == index], labels[labels == index]).item() for index in (0, 1)]
    weight = 0.04 if weights is None and sampling == "shuffled" else 0.5
    expected = (1 - weight) * by_class[0] + weight * by_class[1]
    assert fit.validate(model, data, verbose=False)[0]["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_class_weights_need_rows_to_count(tmp_path: Path, network: nn.Module, digits: Digits):
    with pytest.raises(TrainingError, match="Expected a data module of Dubio's for `class_weights`"):
        trainer(tmp_path).fit(
            Classifier(network, class_weights="balanced"), digits.train_dataloader(), digits.val_dataloader()
        )


def test_predictions_are_probabilities(tmp_path: Path, network: nn.Module, digits: Digits):
    probabilities = torch.cat(trainer(tmp_path).predict(Classifier(network), digits))
    assert probabilities.shape == (len(digits.raw("test")[0]), 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(probabilities)))
    assert network.training


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_logit_norm_is_the_papers_loss_in_training_and_validation_and_not_in_the_test(
    tmp_path: Path, network: nn.Module, digits: Digits, temperature: float
):
    model = Classifier(network.eval(), logit_norm=temperature)
    x, labels = next(iter(digits.val_dataloader()))
    model.log = lambda *_, **__: None  # only a trainer collects figures
    loss = model.training_step((x, labels), 0)
    logits = network(x).detach().double().numpy()
    normed = logits / np.linalg.norm(logits, axis=-1, keepdims=True) / temperature
    due = -_log_softmax(normed)[np.arange(len(labels)), labels.numpy()].mean()
    assert loss.item() == pytest.approx(due, rel=1e-4)

    model = Classifier(network, logit_norm=temperature)
    (validated,) = trainer(tmp_path).validate(model, digits, verbose=False)
    (tested,) = trainer(tmp_path).test(model, digits, verbose=False)
    for name, logged, norm in (("validation", validated["val_loss"], True), ("test", tested["test_loss"], False)):
        loader = digits.val_dataloader() if norm else digits.test_dataloader()
        rows, truth = torch.cat([x for x, _ in loader]), digits.raw(name)[1].numpy()
        with torch.no_grad():
            logits = network.eval()(rows).double().numpy()
        seen = logits / np.linalg.norm(logits, axis=-1, keepdims=True) / temperature if norm else logits
        assert logged == pytest.approx(-_log_softmax(seen)[np.arange(len(truth)), truth].mean(), rel=1e-4)


def test_logit_norm_does_not_see_how_long_logits_are_and_takes_those_of_zero(network: nn.Module):
    model = Classifier(network, logit_norm=0.04)
    logits = torch.randn(5, 10)
    torch.testing.assert_close(model._normed(100 * logits), model._normed(logits))
    zeros = torch.zeros(2, 10, requires_grad=True)
    F.cross_entropy(model._normed(zeros), torch.tensor([1, 2])).backward()
    assert bool(torch.isfinite(zeros.grad).all())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_logit_norm_that_is_no_temperature_is_refused(network: nn.Module, temperature: float):
    with pytest.raises(TrainingError, match="`logit_norm` to be a positive temperature"):
        Classifier(network, logit_norm=temperature)
