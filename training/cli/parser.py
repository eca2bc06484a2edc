"""The parser of the trainer's commands: how its help looks, and what it fills in before it validates."""

from __future__ import annotations

import os
from argparse import Action, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter, Namespace, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser

from dubio.training.cli import loggers
from dubio.training.cli.messages import COMMANDS, PREDICT
from dubio.training.cli.settings import VERBS

# Lightning has configurations fetched from wherever one is said to be, and what a configuration names is run.
set_parsing_settings(config_read_mode_urls_enabled=False, config_read_mode_fsspec_enabled=False)


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of the description as they are, and lists the commands that are not Lightning's too."""

    def _iter_indented_subactions(self, action: Action) -> Generator[Action, None, None]:
        for each in super()._iter_indented_subactions(action):
            each.help = PREDICT if each.dest == "predict" else each.help
            yield each
        if isinstance(action, _SubParsersAction):
            self._indent()
            yield from (Action([], name, help=told, metavar=name) for name, told in COMMANDS.items())
            self._dedent()

    def _metavar_formatter(self, action: Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if isinstance(action, _SubParsersAction) and action.metavar is None:
            return lambda size: (f"{{{','.join([*action.choices, *COMMANDS])}}}",) * size
        return super()._metavar_formatter(action, default_metavar)


class Parser(LightningArgumentParser):
    """Lightning's, but loggers that need a folder are not told that they lack it."""

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        for config in (namespace, *(namespace.get(verb) for verb in VERBS)):
            if isinstance(config, Namespace) and isinstance(config.get("trainer"), Namespace):
                loggers.complete(config.trainer, str(Path(config.get("runs", "runs")) / (run_name(config) or "")))
        super().validate(namespace, *args, **kwargs)


def run_name(config: Namespace) -> str | None:
    """The name of the run: as it was given, or that of the first file."""
    files = [os.fspath(path) for path in config.get("config") or [] if path is not None]
    return config.get("name") or (Path(files[0]).stem if files else None)
