"""Monitored metrics: whether more or less of one is better, and when it is known, wherever a setting watches it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from dubio.models.errors import nearest
from dubio.training.errors import TrainingError

# By the last word of the names of the classifier's metrics.
MODES = {"loss": "min", "accuracy": "max", "f1": "max", "recall": "max"}
SPLITS = ("train", "val", "test")


def mode(metric: str) -> str | None:
    """Whether the smallest or the largest value of a metric is the best; None for one that is not the classifier's."""
    split, _, name = metric.partition("_")
    return MODES.get(name.rpartition("_")[2]) if split in SPLITS else None


def settle(config: Namespace, given: Namespace) -> None:
    """Sets each `mode` that stands beside a `monitor` to the metric's own.

    Lightning's default is `min` for all, which keeps the worst epoch where the accuracy is watched. And it compares
    after the validation, when the training's metrics are still those of the epoch before.

    Args:
        config: All settings of a command; changed.
        given: Those that the user wrote.

    Raises:
        TrainingError: If a mode contradicts its metric, or is missing for a metric that is not the classifier's.
    """
    for where, settings, written in _watching(config, given, ""):
        metric = settings["monitor"]
        right = mode(metric)
        if "mode" not in written:
            settings["mode"] = right
        if settings["mode"] is None:
            near = nearest(metric, [f"{split}_{name}" for split in SPLITS[:2] for name in ("loss", "accuracy")])
            hint = f"did you mean `{near}`? Otherwise set" if near else "set"
            raise TrainingError(
                f"Expected `{where}mode` beside `{where}monitor: {metric}`, for Dubio does not know whether more of "
                f"it is better, but got none; {hint} it to `max` or `min`."
            )
        if right and settings["mode"] != right:
            raise TrainingError(
                f"Expected `{where}mode` to be `{right}` for the metric `{metric}`, but got {settings['mode']!r}, "
                "which would take the worst for the best; leave it out."
            )
        if metric.startswith("train_") and settings.get("save_on_train_epoch_end", ...) is None:
            settings["save_on_train_epoch_end"] = True


def _watching(settings: Any, written: Any, where: str) -> Iterator[tuple[str, Namespace, Any]]:
    """Each group of settings with both a `monitor` and a `mode`: its path, all of it, and what the user wrote of it."""
    if isinstance(settings, list):
        for index, each in enumerate(settings):
            same = isinstance(written, list) and index < len(written)
            yield from _watching(each, written[index] if same else None, f"{where[:-1]}[{index}].")
    if not isinstance(settings, Namespace):
        return
    written = written if isinstance(written, Namespace) else {}
    # A callback of one's own may mean something else by `mode`.
    if isinstance(settings.get("monitor"), str) and settings.get("mode") in {"min", "max"}:
        yield where, settings, written
    for key, value in vars(settings).items():
        yield from _watching(value, written.get(key), f"{where}{key}.")
