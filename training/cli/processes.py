"""Several processes that train together: which of them this is, and what one of them does while the others wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch.distributed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from dubio.training.errors import TrainingError
from dubio.training.splits.shares import Share

# How long the others wait for one to calibrate, measure and write: gloo's own limit is half an hour.
PATIENCE = timedelta(days=7)
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # as gloo words it
FAILED = 1  # the status of a process whose fellow has failed, and has said why


def share(settings: Any) -> Share:
    """Which of the processes of a fit this is, before there is a trainer: the data are read first.

    Args:
        settings: The trainer's, as configured; classes are not built yet.
    """
    if settings.overfit_batches or not settings.use_distributed_sampler:
        return Share()  # Lightning deals with the rows of each process, or the user does
    strategy, accelerator = (
        each if isinstance(each, str) else "auto" for each in (settings.strategy, settings.accelerator)
    )
    # Lightning knows what started it, and what `auto` means on this machine.
    trial = pl.Trainer(
        accelerator=accelerator,
        strategy=strategy,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    launcher = trial.strategy.launcher
    # A strategy that forks copies what one process has read.
    separate = launcher is None or isinstance(launcher, _SubprocessScriptLauncher)
    if not isinstance(trial.strategy, DDPStrategy) or not separate:
        return Share()
    return Share(trial.global_rank, trial.world_size)


@contextmanager
def one_for_all(count: int) -> Iterator[None]:
    """Let only the process that failed say why; the others lose the connection to it.

    Args:
        count: How many processes train.

    Raises:
        TrainingError: In the others.
    """
    try:
        yield
    except RuntimeError as error:
        if count == 1 or not any(sign in str(error) for sign in LOST):
            raise
        raise TrainingError(
            "Another of the processes has ended, and with it this one; what it said tells why."
        ) from error


def alone(work: Callable[[], None], rank: int) -> None:
    """Let the first process work, while the others wait for it to end.

    Args:
        work: What it does.
        rank: Of this process.

    Raises:
        SystemExit: In the others, where the first one has failed, and told why.
        TrainingError: In the others, where it was killed.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        if rank == 0:
            work()
        return
    done = [False]
    if rank == 0:
        waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        try:
            work()
            done = [True]
        finally:
            with suppress(RuntimeError):  # who was ended while it waited need not be told
                torch.distributed.broadcast_object_list(done, src=0, group=waiting)
        return
    try:
        waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        torch.distributed.broadcast_object_list(done, src=0, group=waiting)
    except RuntimeError as error:
        raise TrainingError(
            "Expected process 0 to calibrate and to write the checkpoint, but it was ended before that; what it said, "
            "or the system's log, tells why."
        ) from error
    if not done[0]:
        raise SystemExit(FAILED)
