"""`dubio-train configs`: the configurations that come with Dubio; `--config` takes them by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # documented, but not in its `__all__`
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dubio.models.errors import did_you_mean
from dubio.training.cli import commands
from dubio.training.errors import TrainingError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")

_ARCHIVE = b"PK\x03\x04"  # how a zip file begins, which a checkpoint is

# Characters from which a table of four columns is easy to read.
_WIDE = 110

FOLDER = Path(__file__).parents[2] / "configs"


def names() -> list[str]:
    """The names of all configurations: `digits_mlp`, `recipes/max_norm`."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def bundled(name: str) -> Path:
    """The file of a configuration that comes with Dubio.

    Raises:
        TrainingError: There is none of that name.
    """
    if name in names():
        return FOLDER / f"{name}.yaml"
    hint = did_you_mean(
        name.removeprefix("configs/").removesuffix(".yaml"), names(), "`dubio-train configs` lists the names."
    )
    raise TrainingError(f"Expected a file, or the name of a configuration that Dubio has, but got {name!r}; {hint}")


def find(given: str) -> Path | None:
    """The file of a configuration, with or without `.yaml`, which is preferred to one of Dubio's; None for settings.

    Raises:
        TrainingError: There is none of that name, it is an address, or the file is no text.
    """
    for path in (Path(given), Path(f"{given}.yaml")):
        if os.path.isfile(path):  # of settings, too long for a name, pathlib asks the system
            _check_text(path)
            return path
    if _ADDRESS.match(given):
        raise TrainingError(
            f"Expected `--config` to be a file on this machine, but got {given!r:.200}; download it, read it (what it "
            "names is run), and give the file."
        )
    return None if ":" in given else bundled(given)


def is_bundled(given: str) -> bool:
    """Whether a configuration comes with Dubio."""
    path = None if ":" in given else find(given)
    return path is not None and path.resolve().is_relative_to(FOLDER.resolve())


def _check_text(path: Path) -> None:
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if is_archive:
        raise TrainingError(
            f"Expected `--config` to be a configuration in YAML, but {path} is a checkpoint, or another archive; give "
            "that as `--ckpt` beside the `--config` that it was trained with."
        )
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"Expected `--config` to be a configuration in YAML, a text in UTF-8, but byte {error.start} of {path} is "
            "of none; save it as UTF-8, or give another file."
        ) from error


class ConfigFile(ActionConfigFile):
    """An option that takes a file, settings as YAML, or the name of a configuration that comes with Dubio."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Apply a configuration."""
        self.apply_config(parser, cfg, self.dest, str(find(values) or values))


def main(args: Sequence[str]) -> None:
    """List the configurations, or write one out.

    Raises:
        TrainingError: There is no configuration of that name, or a file is in its way.
    """
    given = commands.configs().parse_args(args)
    if given.name is None:
        if given.output is not None:
            raise TrainingError("Expected the name of a configuration with `--output`, but got none; give one.")
        console = Console()
        console.print(table(console.width))
        return
    source = bundled(given.name)
    target = Path(given.output or source.name)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise TrainingError(
            f"Expected `--output` to be a file that is not there yet, but {target} is; give another one."
        ) from error
    print(f"next: dubio-train fit --config {target}")


def table(width: int) -> Table:
    """One line for each configuration: name, network, data, and what its first line says.

    Args:
        width: Of what it is shown on, in characters; where it is small, network and data are left out.
    """
    rows = Table(title="dubio-train fit --config NAME", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("name", no_wrap=True)
    wide = width >= _WIDE
    if wide:
        rows.add_column("network")
        rows.add_column("data")
    rows.add_column("about")
    for name in names():
        text = bundled(name).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        network = content["model"]["init_args"].get("network", {})
        classes = [each.get("class_path", "").rpartition(".")[2] for each in (network, content.get("data", {}))]
        rows.add_row(name, *(classes if wide else ()), text.partition("\n")[0].removeprefix("# "))
    return rows
