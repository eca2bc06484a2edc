"""A directory of models: `<root>/<name>/<version>/model.ckpt`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.source import ModelSource, is_name

_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")
# Several, such as model-a.ckpt and model-b.ckpt, are one ensemble. Files that are being written are called otherwise.
_CHECKPOINTS = "model*.ckpt"


class ModelDirectory:
    """What lies in a directory of models. Whatever is not named like a model or a version is not looked into."""

    def __init__(self, root: Path) -> None:
        """Look into nothing yet.

        Raises:
            InvalidModelSource: `root` is no directory.
        """
        if not root.is_dir():
            raise InvalidModelSource(
                f"Expected `model_repository` to be a directory with <name>/<version>/model.ckpt in it, but {root} "
                "is none; create it, or name another."
            )
        self.root = root

    def sources(self) -> list[ModelSource]:
        """List every version of every model, by name and version.

        Raises:
            OSError: A directory cannot be read.
        """
        names = sorted(path.name for path in self.root.iterdir())
        return [source for name in names for source in self.of(name)]

    def of(self, name: str) -> list[ModelSource]:
        """List every version of one model, oldest first; none if there is no such model.

        Raises:
            OSError: A directory cannot be read.
        """
        # Looked at before it becomes a path. Hidden folders belong to whoever mounts or copies the directory.
        if not is_name(name) or name.startswith("."):
            return []
        return sorted(self._versions(name), key=lambda source: int(source.version))

    def _versions(self, name: str) -> Iterator[ModelSource]:
        try:
            versions = [path for path in (self.root / name).iterdir() if _VERSION.match(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return
        for folder in versions:
            checkpoints = sorted(folder.glob(_CHECKPOINTS))
            if checkpoints:
                yield ModelSource(name, checkpoints[0], tuple(checkpoints[1:]), version=folder.name, root=self.root)
