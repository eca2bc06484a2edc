"""`dubio-train report`: all that was measured of a checkpoint, on one page that can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from dubio.models.checkpoint import schema
from dubio.training.checkpoint_files import read
from dubio.training.cli import commands
from dubio.training.cli.lightning_cli import CLI, run
from dubio.training.errors import TrainingError
from dubio.training.report import build


class Reported(CLI):
    """A test whose figures are written down instead of printed.

    Attributes:
        output: Folder to write into; None for `report` beside the checkpoint.
        written: The page.
    """

    output: Path | None = None
    written: Path

    def _run_subcommand(self, subcommand: str) -> None:
        path = Path(self.settings.ckpt_path)
        predictor = build.reproducible(path, [type(self.model.network).__module__])
        self.datamodule.load()
        report = build.build(predictor, self.datamodule, path, datetime.now(UTC).date())
        self.written = report.write(self.output or path.parent / "report")


def main(args: Sequence[str]) -> None:
    """Measure, and write the report.

    Args:
        args: `--ckpt`, `--output`, and what `dubio-train test` takes.

    Raises:
        TrainingError: The checkpoint is not calibrated, or its configuration is not beside it.
    """
    given, rest = commands.report().parse_known_args(list(args))
    path = Path(given.ckpt)
    if schema.KEY not in read(path):
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

    class Here(Reported):
        output = Path(given.output) if given.output else None

    command = run(Here, ["test", *own, "--ckpt_path", str(path), *rest])
    Console().print(f"report: {command.written}", soft_wrap=True, highlight=False, markup=False)
