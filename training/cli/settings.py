"""What a command takes, by name: all of it is known without importing torch and Lightning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from jsonargparse.typing import PositiveInt

from dubio.training.cli import signatures
from dubio.training.cli.signatures import Argument, Signature

TRAINER = "dubio.training.trainer.Trainer"
VERBS = ("fit", "validate", "test", "predict", "calibrate")

# Each is a class, and its arguments are settings: `--calibration.alpha`.
SECTIONS = {
    "trainer": TRAINER,
    "checkpoint": "dubio.training.callbacks.checkpoints.BestCheckpoint",
    "calibration": "dubio.training.calibration.CalibrationSettings",
}
# Takes the place of what Lightning's `predict` takes.
PREDICTION = "dubio.training.predictions.PredictionSettings"
# Each is a class that the user chooses.
CHOSEN = {
    "model": Argument("class", None, "What is trained: `dubio.training.Classifier`, and in it `network`, `optimizer`."),
    "data": Argument("class", None, "Where the rows come from, such as `dubio.training.Digits`."),
}

DEFAULTS = {
    "checkpoint.monitor": "val_loss",
    "checkpoint.filename": "best",
    # A run that is repeated replaces its checkpoints; stale ones would look like results.
    "checkpoint.enable_version_counter": False,
}


class Option(NamedTuple):
    """An option of every command."""

    type: Any
    default: Any
    help: str


OPTIONS = {
    "name": Option(str | None, None, "Name of the run; by default that of the first config file."),
    "runs": Option(str, "runs", "Folder that gets one folder a run."),
    "threads": Option(
        PositiveInt | None,
        None,
        "CPU threads; by default one a core. Threads that outnumber the free cores cost more than they give.",
    ),
}
CONFIG = (
    "Configuration file, or the name of one that comes with Dubio (`dubio-train configs` lists them). "
    "May be repeated; later ones override earlier ones."
)
_OF_LIGHTNING = {
    "config": Argument("file", None, CONFIG),
    "seed_everything": Argument("bool | int", "0", "Seed of everything random; `true` takes another one each time."),
    "print_config": Argument("", None, "Print what all arguments amount to, and exit."),
}
# Of the trainer's methods; the command line gives them what it was told in other settings.
_GIVEN = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders", "settings"}

_UNKNOWN = Signature(complete=False)


def of(verb: str) -> dict[str, Argument] | None:
    """Every setting of a command; None where the sources do not tell.

    Args:
        verb: One of `VERBS`.
    """
    method = signatures.of(PREDICTION) if verb == "predict" else signatures.of(TRAINER, verb)
    sections = {name: signatures.of(path) or _UNKNOWN for name, path in SECTIONS.items()}
    if method is None or not all(each.complete for each in sections.values()):
        return None
    own = {name: Argument(_name(kind), repr(default), told) for name, (kind, default, told) in OPTIONS.items()}
    parts = {f"{name}.{key}": each for name, section in sections.items() for key, each in section.arguments.items()}
    parts |= {key: replace(parts[key], default=repr(default)) for key, default in DEFAULTS.items() if key in parts}
    rest = {name: each for name, each in method.arguments.items() if name not in _GIVEN}
    return {**_OF_LIGHTNING, **own, **dict.fromkeys(SECTIONS, Argument("file")), **parts, **CHOSEN, **rest}


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("jsonargparse.typing.", "")
