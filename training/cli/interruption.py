"""A command that was ended before it was done: what to say, and with which status."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from dubio.training.cli.messages import INTERRUPTED
from dubio.training.errors import TrainingError

TERMINATED = 128 + 15


def is_interrupt(error: BaseException) -> bool:
    """Whether this is Ctrl-C, which Lightning turns into an exit with status 1."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )


def go_on(run_folder: Path, trained: bool) -> str:
    """How to go on with a fit that was interrupted.

    Args:
        run_folder: Of the run, with its configuration and checkpoints.
        trained: Whether the training was over, and only the calibration was not.
    """
    verb, name = ("calibrate", "best.ckpt") if trained else ("fit", "last.ckpt")
    config, checkpoint = run_folder / "config.yaml", run_folder / "checkpoints" / name
    if not config.is_file() or not checkpoint.is_file():
        return "interrupted before anything was saved; start again with the same command"
    command = ["dubio-train", verb, "--config", str(config), "--ckpt_path", str(checkpoint)]
    return f"interrupted; go on with: {shlex.join(command)}"


@contextmanager
def in_status() -> Iterator[None]:
    """Turn the ends that Lightning has into those of this command line.

    Raises:
        TrainingError: Lightning calls the configuration wrong.
        SystemExit: The process was told to end, with the status that says so.
    """
    try:
        yield
    except SIGTERMException:
        # Lightning would exit with 0, and a supervisor would take the fit for finished.
        raise SystemExit(TERMINATED) from None
    except MisconfigurationException as error:
        raise TrainingError(str(error)) from error
    except (KeyboardInterrupt, SystemExit) as error:
        if is_interrupt(error):
            raise SystemExit(INTERRUPTED) from None
        raise
