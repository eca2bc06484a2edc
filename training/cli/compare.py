"""`dubio-train compare`: the same training with and without dropout, side by side."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dubio.models.checkpoint import file
from dubio.models.inputs import encoding
from dubio.training.callbacks.learning_curves import Curves, logits
from dubio.training.checkpoint_files import read
from dubio.training.cli import commands, data_summary
from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.errors import TrainingError
from dubio.training.progress import BATCH
from dubio.training.quality import Quality
from dubio.training.trainer import Trainer, check
from dubio.uncertainty import Committee
from dubio.uncertainty.dropout.function_mode import Call, DropoutMode

COLOURS = {"with dropout": "C0", "without dropout": "C1"}


class _NoDropout(DropoutMode):
    def drop(self, call: Call) -> Tensor:
        return call.x


def switch_off(network: nn.Module) -> None:
    """Leave dropout out of every pass from now on, in training mode too, also inside attention and recurrent layers.

    Weights, and the random numbers that they were initialised from, stay as they are. Randomness that is no dropout,
    such as skipped blocks, stays on.

    Args:
        network: Gets a hook before and behind its passes.
    """
    running: list[ExitStack] = []

    def enter(*_: Any) -> None:
        running.append(ExitStack())
        running[-1].enter_context(_NoDropout())

    def leave(*_: Any) -> None:
        running.pop().close()

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave, always_call=True)


class MeasuredFit(CLI):
    """A fit that is measured instead of calibrated, in a folder of its own below the run's.

    Attributes:
        trained: How the network is trained: a key of `COLOURS`.
        curves: Loss and accuracy after each epoch.
        quality: Figures of the test split at the best epoch, by what gave the answers.
    """

    trained: str
    curves: Curves
    quality: dict[str, Quality]

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.run_folder = self.run_folder / "compare" / self.trained.replace(" ", "_")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        self.curves = Curves()
        trainer.callbacks.append(self.curves)
        return trainer

    def before_fit(self) -> None:
        """Refuse what would not be comparable.

        Raises:
            TrainingError: Several processes, or a trial run.
        """
        if self.trainer.world_size > 1 or self.settings.trainer.fast_dev_run:
            raise TrainingError(
                "Expected one process and whole epochs to compare, but got several devices or `trainer.fast_dev_run`; "
                "set `--trainer.devices 1` and `--trainer.fast_dev_run false`."
            )
        self.check_callbacks()

    def after_fit(self) -> None:
        """Measure the best epoch's weights."""
        path = self.settings.checkpoint.path(self.trainer)
        network = self.model.network
        network.load_state_dict(file.network_weights(path, read(path)))
        self.quality = self.measure(network.eval().cpu())

    def measure(self, network: nn.Module) -> dict[str, Quality]:
        """Figures of the test split, by what gave the answers."""
        logits_BC, labels_B = logits(network, self.datamodule, "test")
        return {"deterministic": Quality.of(logits_BC.softmax(-1), labels_B)}


class WithDropout(MeasuredFit):
    """As configured; the committee of the same network is measured too."""

    trained = "with dropout"

    def before_fit(self) -> None:
        super().before_fit()
        data_summary.show(self.datamodule)
        check(self.model, self.datamodule, self.settings.calibration)

    def measure(self, network: nn.Module) -> dict[str, Quality]:
        settings = self.settings.calibration
        raw, labels_B = self.datamodule.raw("test")
        encoded = encoding.encoder(self.datamodule.input, **encoding.place(network))(raw)
        committee = Committee(
            network,
            encoded[:1],
            num_samples=settings.num_samples,
            seed=settings.seed,
            sites=settings.mc_sites,
            rates=settings.mc_rates,
        )
        mean_BC = torch.cat([committee.predictive_moments(batch).mean for batch in encoded.split(BATCH)])
        answer = f"mean of {settings.num_samples} members"
        return {**super().measure(network), answer: Quality.of(mean_BC, labels_B)}


class WithoutDropout(MeasuredFit):
    """With the same weights to begin with, in the same order of rows, for as many epochs; but all rates are 0."""

    trained = "without dropout"

    def before_fit(self) -> None:
        super().before_fit()
        switch_off(self.model.network)


def main(args: Sequence[str]) -> None:
    """Train twice, print the table, and write the curves.

    Args:
        args: What `dubio-train fit` takes, and `--figure`.

    Raises:
        TrainingError: There is nothing to compare.
    """
    given, rest = commands.compare().parse_known_args(list(args))
    kinds: tuple[type[MeasuredFit], ...] = (WithDropout, WithoutDropout)
    fits = [run(kind, ["fit", *rest]) for kind in kinds]
    curves = {fit.trained: fit.curves.rows for fit in fits}
    folder = fits[0].run_folder.parent
    path = Path(given.figure) if given.figure else folder / "curves.svg"
    write(curves, folder / "curves.csv")
    draw(curves, path)
    console = Console()
    console.print(table(fits))
    console.print(f"curves: {path} and {folder / 'curves.csv'}", soft_wrap=True, highlight=False)


def table(fits: Sequence[MeasuredFit]) -> Table:
    """The figures of the test split: one line for each training and source of answers."""
    lines = Table(title="test split, best epoch, no temperature", title_justify="left")
    lines.add_column("trained")
    lines.add_column("answer")
    for name in ("accuracy", "NLL (nats)", "ECE"):
        lines.add_column(name, justify="right")
    for fit in fits:
        for answer, quality in fit.quality.items():
            lines.add_row(fit.trained, answer, f"{quality.accuracy:.2%}", f"{quality.nll:.4f}", f"{quality.ece:.4f}")
    return lines


def write(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """The curves as they were measured: one line for each training and epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"trained": trained, **row} for trained, rows in curves.items() for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def draw(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Loss and error of both trainings, training rows dashed and validation rows solid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for trained, rows in curves.items():
        epochs = [row["epoch"] for row in rows]
        for split, style in (("train", "--"), ("validation", "-")):
            look = {"linestyle": style, "color": COLOURS[trained], "label": f"{split}, {trained}"}
            left.plot(epochs, [row[f"{split}_loss"] for row in rows], **look)
            right.plot(epochs, [100 * (1 - row[f"{split}_accuracy"]) for row in rows], **look)
    left.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    right.set(xlabel="epoch", ylabel="error (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
