"""What does Lightning cost over a loop by hand, and does the loader keep up?

    python benchmarks/loop.py
    python benchmarks/loop.py configs/digits_mlp.yaml --steps 17 --epochs 20

Each configuration is trained as `dubio-train fit` does it (progress bar, log, checkpoints), and then by a loop without
Lightning: from the same weights, on the same batches, with the same optimizer, schedule and validation, but nothing is
shown, logged or written. They take turns; medians over the turns and their ratio are printed as a Markdown table,
in wall-clock time and in processor time, which other processes disturb less. At the end both hold the same weights.

A step is one batch: forward, backward, optimizer. An epoch is its steps, the validation and, with Lightning, what is
written. The loader's share is the part of the loop by hand that waits for batches.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import Callback, LightningModule
from torch import Tensor

from dubio.training import Classifier, TensorDataModule
from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [str(ROOT / "configs" / name) for name in ("fashion_mnist_convnet.yaml", "fashion_mnist_mlp.yaml")]
SEED = 0


@dataclass(frozen=True)
class Moment:
    """Seconds of the wall clock and of the processor, all threads together."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> Moment:
        return Moment(time.perf_counter(), time.process_time())

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.wall - other.wall, self.cpu - other.cpu)


@dataclass(frozen=True)
class Turn:
    """One fit: seconds an epoch, of the median step, and of those of the steps that wait for the batch."""

    epoch: Moment
    step: Moment
    waited: Moment = Moment(0.0, 0.0)


class Clock(Callback):
    """Times a fit from its first batch to its last checkpoint, and the steps alone."""

    def __init__(self) -> None:
        self.steps: list[Moment] = []

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        torch.manual_seed(SEED)
        self.began = Moment.now()

    def on_train_epoch_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.last = Moment.now()

    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = Moment.now()
        self.steps.append(now - self.last)
        self.last = now

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        self.ended = Moment.now()


class Fit(CLI):
    """`dubio-train fit` without the calibration behind it."""

    clock: Clock
    first: Classifier

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        self.clock = Clock()
        trainer.callbacks.append(self.clock)
        return trainer

    def before_fit(self) -> None:
        super().before_fit()
        self.first = copy.deepcopy(self.model)

    def after_fit(self) -> None:
        """Nothing: the calibration is not what is measured."""


def lightning(arguments: list[str], epochs: int) -> tuple[Turn, Fit]:
    """Train as the command line does, as on a terminal."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        fit = run(Fit, ["fit", *arguments])
    clock = fit.clock
    return Turn(each(clock.ended - clock.began, epochs), middle(clock.steps)), fit


def by_hand(model: Classifier, data: TensorDataModule, trainer: Trainer, steps: int, epochs: int) -> Turn:
    """Train the network of `model` without Lightning."""
    model.trainer = trainer  # which knows how many steps the schedule has
    settings = model.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]
    network = model.network.train()
    loader, validation = data.train_dataloader(), data.val_dataloader()
    stepped: list[Moment] = []
    waited: list[Moment] = []
    torch.manual_seed(SEED)
    began = Moment.now()
    for _ in range(epochs):
        batches = iter(loader)
        for _ in range(steps):
            asked = Moment.now()
            x, labels_B = next(batches)
            waited.append(Moment.now() - asked)
            optimizer.zero_grad()
            F.cross_entropy(network(x), labels_B, label_smoothing=model.label_smoothing).backward()
            optimizer.step()
            if schedule["interval"] == "step":
                schedule["scheduler"].step()
            stepped.append(Moment.now() - asked)
        network.eval()
        with torch.inference_mode():
            for x, labels_B in validation:
                logits_BC = network(x)
                F.cross_entropy(logits_BC, labels_B)
                (logits_BC.argmax(-1) == labels_B).float().mean()
        network.train()
        if schedule["interval"] == "epoch":
            schedule["scheduler"].step()
    return Turn(each(Moment.now() - began, epochs), middle(stepped), middle(waited))


def middle(moments: Sequence[Moment]) -> Moment:
    return Moment(median(moment.wall for moment in moments), median(moment.cpu for moment in moments))


def each(moment: Moment, count: int) -> Moment:
    return Moment(moment.wall / count, moment.cpu / count)


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """The largest between two networks' weights."""
    pairs: Iterator[tuple[Tensor, Tensor]] = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def measure(config: str, steps: int, epochs: int, turns: int, threads: int) -> None:
    """Two lines of the table."""
    ours: list[Turn] = []
    theirs: list[Turn] = []
    apart = 0.0
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--config", config, "--runs", folder, "--threads", str(threads), "--seed_everything", str(SEED)]
        arguments += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", str(epochs)]
        arguments += ["--trainer.limit_train_batches", str(steps)]
        for turn in itertools.count():
            mine, fit = lightning(arguments, epochs)
            hand = by_hand(fit.first, fit.datamodule, fit.trainer, steps, epochs)
            apart = max(apart, difference(fit.model.network, fit.first.network))
            if turn:  # the first one warms caches
                ours.append(mine)
                theirs.append(hand)
            if turn == turns:
                break
    for clock in ("wall", "cpu"):
        step, epoch, waited = (
            [getattr(middle([getattr(turn, what) for turn in turns_]), clock) for turns_ in (theirs, ours)]
            for what in ("step", "epoch", "waited")
        )
        print(
            f"| {Path(config).stem} | {clock} | {1e3 * step[0]:.2f} | {1e3 * step[1]:.2f} | {step[1] / step[0]:.3f} "
            f"| {epoch[0]:.2f} | {epoch[1]:.2f} | {epoch[1] / epoch[0]:.3f} | {waited[0] / step[0]:.2%} | {apart:.0e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS, help="what to train; by default %(default)s")
    parser.add_argument("--steps", type=int, default=40, help="batches of an epoch (%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of a fit (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="fits of each kind, beside one to warm up (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s); few, where others compute too")
    given = parser.parse_args()
    os.environ["FORCE_COLOR"] = "1"  # the progress bar draws as on a terminal, although nobody looks
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    print(f"{given.threads} torch thread(s), epochs of {given.steps} steps, medians of {given.turns} turns\n")
    print(
        "| configuration | time | step by hand, ms | Lightning, ms | ratio | epoch by hand, s | Lightning, s | ratio "
        "| loader's share | weights differ by |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for config in given.configs:
        measure(config, given.steps, given.epochs, given.turns, given.threads)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
