"""A command line, parsed and run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from dubio.training.callbacks.checkpoints import LastCheckpoint
from dubio.training.classifier import Classifier
from dubio.training.cli import interruption
from dubio.training.cli.lightning_cli import CLI
from dubio.training.cli.messages import DESCRIPTION, PREDICT
from dubio.training.cli.parser import HelpFormatter
from dubio.training.data.module import TensorDataModule
from dubio.training.trainer import Trainer

Command = TypeVar("Command", bound=CLI)

# Errors are told by `main`; half a name is a mistake, which may otherwise train something else for hours.
_STRICT = {"exit_on_error": False, "allow_abbrev": False}


def _only(cli: type[Command], args: Sequence[str]) -> type[Command]:
    """Without the commands that were not asked for: each has a parser of hundreds of settings to build."""
    wanted = args[0] if args else ""
    skipped = cli.subcommands().get(wanted)
    if skipped is None:
        return cli
    return type(cli.__name__, (cli,), {"subcommands": staticmethod(lambda: {wanted: skipped})})


def run(cli: type[Command], args: list[str] | None = None) -> Command:
    """Parse a command line and do what it asks for.

    Args:
        cli: Which kind of command line.
        args: What was asked for; by default what the process was given.

    Returns:
        The command line, when it has done that.
    """
    cli = _only(cli, sys.argv[1:] if args is None else args)
    # Each a dict of its own: Lightning writes into them.
    kwargs: dict[str, dict[str, Any]] = {subcommand: dict(_STRICT) for subcommand in cli.subcommands()}
    if "predict" in kwargs:
        kwargs["predict"]["description"] = PREDICT
    with interruption.in_status():
        return cli(
            Classifier,
            TensorDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            trainer_defaults={"callbacks": [LastCheckpoint()]},
            seed_everything_default=0,
            save_config_callback=None,  # written by `before_fit`, into the run's folder
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "dubio-train",
                "description": DESCRIPTION,
                "formatter_class": HelpFormatter,
                **_STRICT,
                **kwargs,
            },
            args=args,
        )
