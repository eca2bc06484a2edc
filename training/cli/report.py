"""`dubio-train report`: all that was measured of a checkpoint, on one page that can be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from dubio.models import registry
from dubio.models.checkpoint import schema
from dubio.training.checkpoint_files import read
from dubio.training.cli import commands, quick
from dubio.training.cli.command_line import run
from dubio.training.cli.lightning_cli import CLI
from dubio.training.errors import TrainingError
from dubio.training.report import build


class Reported(CLI):
    """A test whose figures are written down instead of printed.

    Attributes:
        output: Folder to write into.
        configuration: Which says how the data are read, in words.
        written: The page.
    """

    output: Path
    configuration: str
    written: Path

    def _run_subcommand(self, subcommand: str) -> None:
        path = Path(self.settings.ckpt_path)
        predictor = build.reproducible(path, [type(self.model.network).__module__])
        self.datamodule.load()
        own, other = predictor.network_spec.class_path, registry.class_path(type(self.model.network))
        if own != other:  # other classes of the data are refused where they are read
            raise TrainingError(_other_run(path, self.configuration, own, other))
        report = build.build(predictor, self.datamodule, path, datetime.now(UTC).date(), self.configuration)
        self.written = report.write(self.output)


def main(args: Sequence[str]) -> None:
    """Measure, and write the report.

    Args:
        args: `--ckpt`, `--output`, and what `dubio-train test` takes.

    Raises:
        TrainingError: The checkpoint is not calibrated, or its configuration is not beside it.
    """
    given, rest = commands.report().parse_known_args(list(args))
    path = Path(given.ckpt)
    content = read(path)
    if schema.KEY not in content:
        raise TrainingError(
            f"{path}: expected a calibrated checkpoint to report on, but this one is not; calibrate it first "
            f"(`dubio-train calibrate --config ... --ckpt_path {path}`) and give what that writes."
        )
    config = path.parent / "config.yaml"
    own = [] if any(each.partition("=")[0] in ("-c", "--config") for each in rest) else ["--config", str(config)]
    if own and not config.is_file():
        raise TrainingError(
            f"Expected the configuration of the fit beside the checkpoint, at {config}, but there is none; give "
            "`--config`."
        )
    if own:  # nothing that it names is imported where it is another run's
        named, held = _network(config), _network_of(content)
        if held.rpartition(".")[2] not in ("", named.rpartition(".")[2]):
            raise TrainingError(_other_run(path, str(config), held, named))

    class Here(Reported):
        output = Path(given.output or path.parent / f"{path.stem}_report")
        configuration = f"{config.name} beside the checkpoint" if own else _configs(rest)

    command = run(Here, ["test", *own, "--ckpt_path", str(path), *rest])
    Console().print(f"report: {command.written}", soft_wrap=True, highlight=False, markup=False)


def _other_run(path: Path, config: str, own: str, other: str) -> str:
    return (
        f"Expected the configuration of the fit of {path}, whose network is {own[:200]}, but {config} has "
        f"{other[:200]}; give that fit's configuration with `--config`."
    )


def _network_of(content: Mapping[str, Any]) -> str:
    """The class of the network in a calibrated checkpoint; nothing where it is damaged, which its load tells."""
    held = content[schema.KEY]
    network = held.get("network") if isinstance(held, Mapping) else None
    return str(network.get("class_path")) if isinstance(network, Mapping) else ""


def _network(config: Path) -> str:
    """The class of the network in a configuration, as it is written there."""
    given = {each.key: each.value for each in quick.settings_of(["--config", str(config)])}
    keys = ("model.init_args.network.class_path", "model.init_args.network", "model.network.class_path")
    return next((str(given[key]) for key in keys if key in given), "none")


def _configs(args: Sequence[str]) -> str:
    """The configurations that a command line names; one that is written out in it is not repeated."""
    files = dict.fromkeys(each.config for each in quick.settings_of(args) if each.config and ":" not in each.config)
    return ", ".join(Path(file).name for file in files) or "the command line"
