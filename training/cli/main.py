"""The command line `dubio-train`: what it was asked for, and mistakes told in one line."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from dubio.models.errors import printable
from dubio.training.cli import commands, first_checkpoint, quick
from dubio.training.cli.messages import COMMANDS, FLAG, INTERRUPTED, TRACEBACK, format_warning, one_line

# Warnings that a user of the command line can do nothing about, or need do nothing about.
NOISE = (
    ".*does not have many workers.*",  # the data is in memory: worker processes would only copy it
    "Checkpoint directory .* exists and is not empty.",  # a repeated run is meant to replace its checkpoints
    "The dirpath has changed from",  # a checkpoint may be tested or resumed in another run's folder
    "The number of training batches .* is smaller than the logging interval",  # what is logged, is logged an epoch
    "You're using the WeightAveraging callback, but loading a checkpoint outside",  # which holds the average already
    "Precision .* is not supported by the model summary",
    "LightningCLI's args parameter is intended to run from within Python",  # how `compare` calls it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's use of torch
)

# Commands that take the settings of a verb: which one, and what they take beside them.
TAKES = {"compare": ("fit", ["figure"]), "report": ("test", ["output"])}


def main(args: list[str] | None = None) -> None:
    """Run the command line; a user's mistake prints one line and exits with status 2.

    Args:
        args: What was asked for; by default what the process was given, which then also finds modules in the folder
            that it was started in.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = format_warning
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    given = sys.argv[1:] if args is None else args
    traced = FLAG in given or bool(os.environ.get(TRACEBACK))
    given = first_checkpoint.spelled([argument for argument in given if argument != FLAG])
    if args is None:
        sys.argv[1:] = given  # where the parser looks
        sys.path.append(os.getcwd())  # last: what a user calls `models` or `numpy` must hide nobody else's
    try:
        _run(given, None if args is None else given)
    except KeyboardInterrupt:
        print("dubio-train: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ArgumentError, ValueError, OSError) as error:
        if traced:
            raise
        for note in getattr(error, "__notes__", ()):
            print(printable(note), file=sys.stderr)
        print(f"dubio-train: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _importing() -> Iterator[None]:
    """Without garbage collection: what imports make stays, and looking through it took a fifth of their time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _run(given: list[str], args: list[str] | None) -> None:
    if given and given[0] in COMMANDS:
        if any(each in quick.HELP for each in given[1:]):
            commands.PARSERS[given[0]]().parse_args(["--help"])
        if given[0] in TAKES:
            verb, more = TAKES[given[0]]
            quick.check(verb, given[1:], more)
        first_checkpoint.check(given[0], given[1:])
        with _importing():
            command = import_module(f"dubio.training.cli.{given[0]}")
        command.main(given[1:])
    else:
        quick.answer(given)
        first_checkpoint.check(given[0], given[1:])
        with _importing():
            from dubio.training.cli import command_line, lightning_cli

        command_line.run(lightning_cli.CLI, args)
