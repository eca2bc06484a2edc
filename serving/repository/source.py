"""Where a model comes from: the name and version it is served under, and its checkpoint or checkpoints."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dubio.serving.errors import InvalidModelSource

# A name is part of a URL, so it must be one path segment and never need quoting; dots alone would climb.
_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,100}\Z")
# `/v2/models/stats` are the statistics of all models.
_TAKEN = frozenset({"stats"})
# Only behind a checkpoint's suffix, because a folder may well have a + in its name.
_BETWEEN_CHECKPOINTS = re.compile(r"(?<=\.ckpt)\+")

# Device, inode, size and time of the last change of every file: other bytes have another one.
Stamp = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class ModelSource:
    """What to load as one version of a model.

    Attributes:
        name: Name it is served under.
        path: Its checkpoint, or a folder with it in it; `folder.checkpoint_of` finds it.
        also: Further checkpoints, which together with the first are one ensemble.
        version: Version it is served under.
        root: Folder that the checkpoints must not lead out of; None where the operator named the files themselves.
    """

    name: str
    path: Path
    also: tuple[Path, ...] = ()
    version: str = "1"
    root: Path | None = None

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """Read `path`, `name=path`, or `name=first.ckpt+second.ckpt` for an ensemble.

        Without a name, `runs/digits_mlp/model.ckpt` is called `digits_mlp`, as is the folder `runs/digits_mlp`; any
        other file goes by its stem.

        Raises:
            InvalidModelSource: The name could not be part of a URL or is missing for an ensemble, or a path is empty.
        """
        name, equals, rest = text.partition("=")
        named = bool(equals) and "/" not in name  # a path may itself contain '='
        texts = _BETWEEN_CHECKPOINTS.split(rest if named else text)
        path, *also = map(Path, texts)
        if also and not named:
            raise InvalidModelSource(
                f"Expected a name for the ensemble {text!r}, but there is none; name it yourself: some-name={text}"
            )
        if not named:
            name = _name_of(path)
        if not is_name(name):
            raise InvalidModelSource(
                f"Expected the name of model {text!r} to be 1 to 100 of the characters A-Z a-z 0-9 . _ - "
                f"and neither dots alone nor a word of the protocol ({', '.join(_TAKEN)}), but got {name!r}; name it "
                f"yourself: some-name={path}"
            )
        if "" in texts:  # as a path it would be the working directory
            raise InvalidModelSource(f"Expected a checkpoint's path in {text!r}, but it is empty; write name=path.")
        return cls(name, path, tuple(also))

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.name, self.version

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of all checkpoints."""
        return self.path, *self.also

    def stamp(self) -> Stamp | None:
        """Read what changes whenever a checkpoint does; None while one is missing."""
        try:
            stats = [os.stat(path) for path in self.paths]
        except OSError:
            return None
        return tuple((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def _name_of(path: Path) -> str:
    if os.path.isdir(path):
        return path.absolute().name
    return path.absolute().parent.name if path.name == "model.ckpt" else path.stem


def is_name(name: str) -> bool:
    """Tell whether a model may be called so."""
    return bool(_NAME.match(name)) and name not in _TAKEN
