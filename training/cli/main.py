"""The command line `dubio-train`: what it was asked for, and mistakes told in one line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from argparse import ArgumentError

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from dubio.training.cli import audit, compare, configs
from dubio.training.cli.lightning_cli import CLI, run
from dubio.training.cli.messages import FLAG, TRACEBACK, one_line

HANDLERS = {"audit": audit.main, "compare": compare.main, "configs": configs.main}

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


def main(args: list[str] | None = None) -> None:
    """Run the command line; a user's mistake prints one line and exits with status 2.

    Args:
        args: What was asked for; by default what the process was given, which then also finds modules in the folder
            that it was started in.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    given = sys.argv[1:] if args is None else args
    traced = FLAG in given or bool(os.environ.get(TRACEBACK))
    given = [argument for argument in given if argument != FLAG]
    if args is None:
        sys.argv[1:] = given  # where the parser looks
        sys.path.append(os.getcwd())  # last: what a user calls `models` or `numpy` must hide nobody else's
    try:
        if given and given[0] in HANDLERS:
            HANDLERS[given[0]](given[1:])
        else:
            run(CLI, None if args is None else given)
    except SIGTERMException:
        # Lightning would exit with 0, and a supervisor would take the fit for finished.
        sys.exit(128 + 15)
    except (ArgumentError, ValueError, OSError, MisconfigurationException) as error:
        if traced:
            raise
        print(f"dubio-train: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
