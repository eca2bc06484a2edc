"""A dry run of everything that follows the training, so that what would stop it then stops it before."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from dubio.models import NetworkSpec, registry, save
from dubio.training import calibration, evaluation, score_choice
from dubio.training.calibration import CalibrationSettings
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.splits.dataset import Examples
from dubio.training.splits.random_splits import IntArray, SplitName
from dubio.uncertainty.detection.mahalanobis import MAX_INPUT_WIDTH
from dubio.uncertainty.detection.registry import SCORES

# Rows of a split that show whatever more of them would show; of the training rows there are more.
ENOUGH = 16
# Rows that are looked at to find different ones among them.
LOOKED_AT = 1000
# Scores that take the covariance of the inputs.
OF_INPUTS = ("input_mahalanobis", "input_class_mahalanobis")


class _FewRows:
    """A data module with a few rows of each split."""

    def __init__(self, data: TensorDataModule, rows: Mapping[SplitName, IntArray]) -> None:
        self._data = data
        self.splits = {
            name: Examples(examples.x[rows[name]], examples.labels[rows[name]])
            for name, examples in _splits(data).items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def raw(self, name: SplitName) -> tuple[Tensor, Tensor]:
        examples = self.splits[name]
        return torch.from_numpy(examples.x.astype(np.float32)), torch.from_numpy(examples.labels.astype(np.int64))

    def out_of_distribution(self) -> dict[str, Tensor]:
        return {name: x[:ENOUGH] for name, x in self._data.out_of_distribution().items()}


def dry_run(network: nn.Module, spec: NetworkSpec, data: TensorDataModule, settings: CalibrationSettings) -> None:
    """Calibrates, measures and writes a copy of the untrained network, with few rows; it leaves no trace.

    Args:
        network: Not trained yet; it is left alone, and so are the random numbers.
        spec: How to build it again.
        data: Gives the real splits.
        settings: What will be promised.

    Raises:
        TrainingError: If the training rows are too few for a score, or the inputs too wide.
        ModelError: If the network cannot be built from its spec, or does not fit into a file.
        UncertaintyError: If the network cannot be sampled, or the inputs or rows do not suit a score.
    """
    _check_rows(data, settings)
    k = settings.k if data.share.count == 1 else None  # here are fewer rows than all processes have
    settings = replace(settings, k=k)
    few = cast("TensorDataModule", _FewRows(data, {name: _choose(name, data, settings) for name in data.splits}))
    # The level that is asked for is a matter of the number of rows alone, which is known. The covariance of the inputs
    # is one of their width, which is known, too, and takes long.
    copied = copy.deepcopy(network).eval()
    names, _ = score_choice.choose(data.input, settings.scores, copied)
    scores = tuple(name for name in names if name not in OF_INPUTS) or ("max_softmax",)
    rates = settings.tune_rates and settings.tune_rates[:1]
    easy = replace(settings, alpha=0.5, delta=0.5, scores=scores, tune_rates=rates)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        predictor = calibration.calibrate(copied, spec, few, easy, measure_seconds=0)
        evaluation.evaluate(predictor, few)
        registry.build(spec, predictor.network.state_dict(), trusted=[type(network).__module__])
        save(predictor, None, Path(folder) / "model.ckpt")


def _check_rows(data: TensorDataModule, settings: CalibrationSettings) -> None:
    labels, width = data.load().labels("train"), math.prod(data.input.shape)
    names = score_choice.may_be_fitted(data.input, settings.scores)
    of_inputs = [name for name in names if name in OF_INPUTS]
    if of_inputs and width > MAX_INPUT_WIDTH:
        raise TrainingError(
            f"Expected inputs of at most {MAX_INPUT_WIDTH} numbers for the score `{of_inputs[0]}`, but got {width}; "
            "leave it out of `calibration.scores`."
        )
    k = settings.neighbour(len(labels), len(data.classes))
    banks = score_choice.with_bank(names)
    if banks and k > len(labels):
        raise TrainingError(
            f"Expected `calibration.k` to be at most {len(labels)}, the number of training rows, but got {k}; "
            f"set it lower, or leave `{banks[0]}` out of `calibration.scores`."
        )
    classes, counts = np.unique(labels, return_counts=True)
    of_classes = [name for name in names if SCORES[name].fits_classes]
    if of_classes and counts.min() < 2:
        raise TrainingError(
            f"Expected at least 2 training rows of every class for the score `{of_classes[0]}`, but class "
            f"{data.classes[classes[counts.argmin()]]!r} has 1; add rows, drop the class or merge it with another, or "
            "leave the score out of `calibration.scores`."
        )


def _splits(data: TensorDataModule) -> Mapping[SplitName, Examples]:
    """The rows by split; where this process has a share of the training rows, held-out ones stand for them.

    A share may lack a class, of which every other split has a row.
    """
    if data.share.count == 1:
        return data.splits
    held_out = [data.splits["select"], data.splits["calibration"]]
    x, labels = (np.concatenate(parts) for parts in zip(*((each.x, each.labels) for each in held_out), strict=True))
    return {**data.splits, "train": Examples(x, labels)}


def _choose(name: SplitName, data: TensorDataModule, settings: CalibrationSettings) -> IntArray:
    """Rows that show what all rows would: two of each class and k to train on, and different ones of the others."""
    examples = _splits(data)[name]
    if name != "train":
        different = {row.tobytes(): index for index, row in enumerate(examples.x[:LOOKED_AT])}
        return np.array(sorted(different.values())[:ENOUGH], dtype=np.int64)
    order = np.argsort(examples.labels, kind="stable")
    _, starts, counts = np.unique(examples.labels[order], return_index=True, return_counts=True)
    two = np.concatenate([order[start : start + min(2, count)] for start, count in zip(starts, counts, strict=True)])
    return np.union1d(two, np.arange(min(len(order), settings.neighbour(len(order), len(data.classes)))))
