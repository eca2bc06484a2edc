"""Classes that are given by their bare names, `MLP`: the parser knows those that were imported."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dubio import models, training
from dubio.training.cli import quick


def import_named(args: Sequence[str]) -> None:
    """Import what a command line and its configurations name of Dubio's; the rest costs time and is not used.

    Args:
        args: What stands behind the command.
    """
    for name in named(args):
        getattr(models if name in models.__all__ else training, name)


def named(args: Sequence[str]) -> set[str]:
    """The public names that a command line and its configurations may mean."""
    settings = list(quick.settings_of(args))
    known = {*models.__all__, *training.__all__}
    # Help lists all classes, and a file that stands for a class is not looked into.
    every = any(arg.partition("=")[0].endswith(".help") for arg in args)
    if every or any(str(each.value).endswith((".yaml", ".yml", ".json")) for each in settings):
        return known
    return known & {*re.findall(r"\w+", " ".join([*args, *(str(each.value) for each in settings)]))}
