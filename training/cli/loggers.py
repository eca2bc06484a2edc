"""Loggers that need a folder get the run's, unless they were given one."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

from jsonargparse import Namespace

NAME = "logs"  # of the folder in the run's folder


def complete(trainer: Namespace, folder: str) -> None:
    """Fill in where each logger of a trainer writes.

    Args:
        trainer: The trainer's settings; changed in place.
        folder: Of the run.
    """
    loggers = trainer.get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not isinstance(logger, Namespace) or "class_path" not in logger:
            continue
        try:
            known = inspect.signature(resolve_name(logger.class_path)).parameters
        except (ImportError, AttributeError, ValueError):
            continue  # the parser says what is wrong with the class
        given = logger.get("init_args") or Namespace()  # type: ignore[no-untyped-call]
        needed = "save_dir" in known and known["save_dir"].default is inspect.Parameter.empty
        if needed and given.get("save_dir") is None:
            given["save_dir"] = folder
            if "name" in known and given.get("name") in (None, known["name"].default):
                given["name"] = NAME
            logger["init_args"] = given
