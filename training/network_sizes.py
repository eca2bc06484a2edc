"""Sizes: the arguments of a network that follow from the data, so that nobody has to count columns or classes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from dubio.models.inputs.text import PADDING
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError

# What networks call them; a network of one's own may use the same names.
NAMES = ("num_classes", "in_features", "in_channels", "image_size", "features", "length", "vocabulary", "padding")


# As jsonargparse words it.
_REQUIRED = re.compile(
    r"""Parser key "network":\s+Problem with given class_path '[\w.]+':\s+"""
    r"""the following arguments are required: ([\w, ]+)"""
)


def required(error: BaseException) -> list[str]:
    """The sizes whose lack is all that is wrong with a command line: a network need not have defaults for them."""
    found = _REQUIRED.search(str(error))
    names = found[1].split(", ") if found else []
    return names if set(names) <= set(NAMES) else []


def left_out(network_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a network has and that were not given, with their defaults.

    The parser fills in defaults, so a value that is the class's default counts as not given.

    Args:
        network_class: Class of the network.
        given: Its arguments in the configuration.
    """
    parameters = inspect.signature(network_class).parameters
    defaults = {name: parameters[name].default for name in NAMES if name in parameters}
    return {name: default for name, default in defaults.items() if given.get(name, default) == default}


def of(name: str, default: Any, data: TensorDataModule) -> Any:
    """What the data decide; the default where they do not.

    Raises:
        TrainingError: If there is no default either.
    """
    size = _decided(name, default, data)
    if size is inspect.Parameter.empty:
        raise TrainingError(
            f"Expected `model.init_args.network.init_args.{name}`, for {data.title} does not decide it, but got none; "
            "set it."
        )
    return size


def _decided(name: str, default: Any, data: TensorDataModule) -> Any:
    if name == "num_classes":
        return len(data.classes)
    spec = data.input
    if spec.kind == "text":
        return {"vocabulary": int(spec.high) + 1, "length": spec.shape[0], "padding": PADDING}.get(name, default)
    if name == "in_features":
        return math.prod(spec.shape)
    if spec.kind != "image":
        return default
    channels, height, width = spec.shape
    # A network of sequences reads an image row by row, the rows of one channel after those of another.
    return {"in_channels": channels, "image_size": height, "features": width, "length": channels * height}.get(
        name, default
    )
