"""The checkpoint that a command begins with: where it is, and whether it is one, known without torch and Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dubio.models.checkpoint import archive, safetensors_file
from dubio.training.cli import quick
from dubio.training.cli.messages import CHECKPOINT
from dubio.training.errors import TrainingError

NAMES = ("last", "best")  # those of the run
LIGHTNINGS = ("hpc", "registry")  # that Lightning finds by itself
# What prints something and ends, before a checkpoint is looked for.
_PRINTS = ("--print_config", "--help", "-h")


def spelled(args: Sequence[str]) -> list[str]:
    """The arguments of a command with the checkpoint's option as the parser knows it."""
    short, long = CHECKPOINT
    return [f"{long}{each.removeprefix(short)}" if each.partition("=")[0] == short else each for each in args]


def find(args: Sequence[str]) -> Path | None:
    """The checkpoint that a command begins with, as its arguments name it; None where they name neither it nor a run.

    Args:
        args: What stands behind the command.
    """
    given, configs = _given(args)
    name, path = given.get("name") or (Path(configs[0]).stem if configs else None), given.get("ckpt_path")
    if path is not None and path not in NAMES:
        return Path(path)
    if name is None:
        return None
    folder = Path(given.get("runs", "runs")) / str(name)
    return folder / "model.ckpt" if path is None else folder / "checkpoints" / f"{path}.ckpt"


def check(command: str, args: Sequence[str]) -> None:
    """Refuse a checkpoint that is not there, or is none, before the seconds that it takes to import what reads one.

    Args:
        command: What is done with it.
        args: What stands behind the command.

    Raises:
        TrainingError: The run has none.
        UnreadableCheckpoint: There is no such file, or it is no checkpoint.
    """
    if any(each.partition("=")[0].startswith(_PRINTS) or each.endswith(".help") for each in args):
        return
    path, given = find(args), _given(args)[0].get("ckpt_path")
    if path is None or (given is None and command in ("fit", "compare")):
        return
    if given is None and not path.is_file():
        raise TrainingError(missing(path))
    if given in LIGHTNINGS or "://" in str(given) or (command == "fit" and given in NAMES):
        return  # looked for later, by Lightning, or where the trainer is known
    if command == "fit" or not safetensors_file.is_one(path):
        archive.check(path)


def missing(path: Path) -> str:
    """That a run has no trained model."""
    return (
        f"Expected `--ckpt_path`, or a trained model at {path}, but there is none; run `dubio-train fit` with the same "
        "configuration first."
    )


def _given(args: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that a command line gives, and its configurations that are files."""
    settings = list(quick.settings_of(args))
    given = {each.key: each.value for each in settings if each.value is not None}
    return given, [each.config for each in settings if each.config and ":" not in each.config]
