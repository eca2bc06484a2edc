"""`dubio-train compare`: the same training with and without dropout, side by side."""

from __future__ import annotations

import argparse
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
from dubio.training.calibration import BATCH
from dubio.training.callbacks.learning_curves import Curves, logits
from dubio.training.cli.lightning_cli import CLI, run
from dubio.training.errors import TrainingError
from dubio.training.evaluation import Quality
from dubio.training.trainer import Trainer, check
from dubio.uncertainty import Committee
from dubio.uncertainty.dropout.function_mode import Call, DropoutMode


class _Undropped(DropoutMode):
    def drop(self, call: Call) -> Tensor:
        return call.x


def switch_off(network: nn.Module) -> None:
    """Leaves dropout out of every pass from now on, in training mode too, also inside attention and recurrent layers.

    Weights, and the random numbers that they were initialised from, stay as they are. Randomness that is no dropout,
    such as skipped blocks, stays on.
    """
    running: list[ExitStack] = []

    def enter(*_: Any) -> None:
        running.append(ExitStack())
        running[-1].enter_context(_Undropped())

    def leave(*_: Any) -> None:
        running.pop().close()

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave, always_call=True)


COLOURS = {"with dropout": "C0", "without dropout": "C1"}


class Rival(CLI):
    """A fit that is measured instead of calibrated, in a folder of its own below the run's."""

    folder: str
    curves: Curves
    found: dict[str, Quality]

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        self.run_folder = self.run_folder / "compare" / self.folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        self.curves = Curves()
        trainer.callbacks.append(self.curves)
        return trainer

    def before_fit(self) -> None:
        if self.trainer.world_size > 1 or getattr(self.trainer, "fast_dev_run", False):
            raise TrainingError(
                "Expected one process and whole epochs to compare, but got several devices or `trainer.fast_dev_run`; "
                "set `--trainer.devices 1` and `--trainer.fast_dev_run false`."
            )

    def after_fit(self) -> None:
        path = self.best()
        network = self.model.network
        network.load_state_dict(file.network_weights(path, file.read_plain(path)))
        self.found = self.measure(network.eval().cpu())

    def measure(self, network: nn.Module) -> dict[str, Quality]:
        """Figures of the test split, by what gave the answers."""
        answers, labels = logits(network, self.datamodule, "test")
        return {"deterministic": Quality.of(answers.softmax(-1), labels)}


class WithDropout(Rival):
    """As configured; the committee of the same network is measured too."""

    folder = "with_dropout"

    def before_fit(self) -> None:
        super().before_fit()
        check(self.model, self.datamodule, self.config_init[self.subcommand].calibration)

    def measure(self, network: nn.Module) -> dict[str, Quality]:
        settings = self.config_init[self.subcommand].calibration
        raw, labels = self.datamodule.raw("test")
        encoded = encoding.encoder(self.datamodule.input)(raw)
        committee = Committee(
            network,
            encoded[:1],
            num_samples=settings.num_samples,
            seed=settings.seed,
            sites=settings.mc_sites,
            rates=settings.mc_rates,
        )
        means: list[Tensor] = [committee(batch).softmax(-1).mean(0) for batch in encoded.split(BATCH)]
        members = f"mean of {settings.num_samples} members"
        return {**super().measure(network), members: Quality.of(torch.cat(means), labels)}


class WithoutDropout(Rival):
    """With the same weights to begin with, in the same order of rows, for as many epochs; but all rates are 0."""

    folder = "without_dropout"

    def before_fit(self) -> None:
        super().before_fit()
        switch_off(self.model.network)


def main(args: Sequence[str]) -> None:
    """Train twice, print the table, and write the curves.

    Raises:
        TrainingError: there is nothing to compare.
    """
    parser = argparse.ArgumentParser(
        prog="dubio-train compare",
        description="Train with and without dropout, for the same epochs from the same weights; draw loss and accuracy "
        "on training and validation rows, and tell accuracy, NLL and calibration error on the test rows. Takes every "
        "argument that `dubio-train fit` takes.",
    )
    parser.add_argument("--figure", metavar="PATH", help="where to draw; by default compare/curves.svg in the run")
    given, rest = parser.parse_known_args(list(args))
    rivals: dict[str, Rival] = {
        "with dropout": run(WithDropout, ["fit", *rest]),
        "without dropout": run(WithoutDropout, ["fit", *rest]),
    }
    curves = {name: rival.curves.rows for name, rival in rivals.items()}
    folder = next(iter(rivals.values())).run_folder.parent
    path = Path(given.figure) if given.figure else folder / "curves.svg"
    write(curves, folder / "curves.csv")
    draw(curves, path)
    console = Console()
    console.print(table({name: rival.found for name, rival in rivals.items()}))
    console.print(f"curves: {path} and {folder / 'curves.csv'}", soft_wrap=True, highlight=False)


def table(found: Mapping[str, Mapping[str, Quality]]) -> Table:
    """The figures of the test split: one line for each training and way to answer."""
    lines = Table(title="test split, best epoch, no temperature", title_justify="left")
    lines.add_column("trained")
    lines.add_column("answer")
    for name in ("accuracy", "NLL (nats)", "ECE"):
        lines.add_column(name, justify="right")
    for trained, by_answer in found.items():
        for answer, quality in by_answer.items():
            lines.add_row(trained, answer, f"{quality.accuracy:.2%}", f"{quality.nll:.4f}", f"{quality.ece:.4f}")
    return lines


def write(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """The curves as they were measured: one line for each training and epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = list(next(iter(curves.values()))[0])
        writer.writerow(["trained", *names])
        for trained, rows in curves.items():
            writer.writerows([trained, *(row[name] for name in names)] for row in rows)


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
