"""A directory of models: `<root>/<name>/<version>/model.ckpt`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.source import ModelSource, is_name

_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")
_SHADOW = re.compile(r"([1-9][0-9]{0,17})\.shadow\Z")
# Several, such as model-a.ckpt and model-b.ckpt, are one ensemble. Files that are being written are called otherwise.
_CHECKPOINTS = "model*.ckpt"
_NO_NAME = "a model's name has 1 to 100 of the characters A-Z a-z 0-9 . _ - and is not 'stats'"


@dataclass(frozen=True)
class Listing:
    """What was found in a directory of models.

    Attributes:
        sources: Every version of every model.
        skipped: Folders that could not be looked into, by name and version (None: all of them), and why.
        vain: What has been looked into and holds nothing to serve, and what it would have to hold.
        unclear: Folders that the operator named as a model and that do not hold one checkpoint, in a sentence each.
    """

    sources: list[ModelSource] = field(default_factory=list)
    skipped: dict[tuple[str, str | None], str] = field(default_factory=dict)
    vain: dict[str, str] = field(default_factory=dict)
    unclear: dict[tuple[str, str], str] = field(default_factory=dict)

    def skips(self, key: tuple[str, str]) -> bool:
        """Tell whether this version may be there without being seen."""
        return key in self.skipped or (key[0], None) in self.skipped or key in self.unclear

    def complaints(self) -> list[str]:
        """A sentence for each folder that nothing is served from."""
        skipped = {"/".join(filter(None, key)): why for key, why in self.skipped.items()} | self.vain
        return [
            *(f"Skipped {name!r} in the model repository: {why}." for name, why in skipped.items()),
            *self.unclear.values(),
        ]


class ModelDirectory:
    """What lies in a directory of models. Whatever is not named like a model or a version is not looked into."""

    def __init__(self, root: Path) -> None:
        """Look into nothing yet.

        Raises:
            InvalidModelSource: `root` is no directory.
        """
        if not os.path.isdir(root):
            raise InvalidModelSource(
                f"Expected `model_repository` to be a directory with <name>/<version>/model.ckpt in it, but {root} "
                "is none, or this user may not see it; create it, or name another."
            )
        self.root = root

    def scan(self) -> Listing:
        """List every version of every model, by name and version.

        Raises:
            OSError: The directory itself cannot be read.
        """
        listing = Listing()
        for name in sorted(os.listdir(self.root)):
            if not is_name(name) and not name.startswith(".") and os.path.isdir(self.root / name):
                listing.skipped[name, None] = _NO_NAME
            elif name.endswith(".ckpt") and not name.startswith(".") and os.path.isfile(self.root / name):
                listing.vain[name] = (
                    "a checkpoint belongs into <name>/<version>/model.ckpt; move it there, or serve a folder that "
                    f"holds one checkpoint without --model-repository: dubio-serve {self.root}"
                )
            self._add(name, listing)
        return listing

    def of(self, name: str) -> Listing:
        """List every version of one model, oldest first; none if there is no such model."""
        listing = Listing()
        self._add(name, listing)
        return listing

    def shadows(self) -> dict[str, ModelSource]:
        """Find the highest version of each model that lies there as a shadow: in a folder such as `3.shadow`.

        Raises:
            OSError: The directory itself cannot be read.
        """
        found: dict[str, ModelSource] = {}
        for name in sorted(filter(is_name, os.listdir(self.root))):
            with suppress(OSError):  # a folder that cannot be read is told when its versions are looked for
                matches = filter(None, map(_SHADOW.match, _names(self.root / name)))
                for match in sorted(matches, key=lambda match: int(match[1])):
                    folder = self.root / name / match[0]
                    if files := [folder / file for file in sorted(_names(folder)) if fnmatchcase(file, _CHECKPOINTS)]:
                        found[name] = ModelSource(name, files[0], tuple(files[1:]), version=match[1], root=self.root)
        return found

    def _add(self, name: str, listing: Listing) -> None:
        # Looked at before it becomes a path. Hidden folders belong to whoever mounts or copies the directory.
        if not is_name(name) or name.startswith("."):
            return
        try:
            versions = [version for version in _names(self.root / name) if _VERSION.match(version)]
        except OSError as error:
            listing.skipped[name, None] = str(error.strerror)
            return
        if not versions and os.path.isdir(self.root / name):
            listing.vain[name] = (
                "it has no folder that is named by the number of a version; put the checkpoint into "
                f"{name}/1/model.ckpt, and later ones into {name}/2 and so on"
            )
        for version in sorted(versions, key=int):
            folder = self.root / name / version
            try:
                files = sorted(_names(folder))
            except OSError as error:
                listing.skipped[name, version] = str(error.strerror)
                continue
            checkpoints = [folder / file for file in files if fnmatchcase(file, _CHECKPOINTS)]
            others = [file for file in files if file.endswith(".ckpt") and not file.startswith(".")]
            if others and not checkpoints:
                listing.vain[f"{name}/{version}"] = (
                    f"no file in it is named {_CHECKPOINTS}; rename {others[0][:100]!r} to 'model.ckpt'"
                )
            if checkpoints:
                listing.sources.append(
                    ModelSource(name, checkpoints[0], tuple(checkpoints[1:]), version=version, root=self.root)
                )


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder; none if it is a file or gone.

    Raises:
        OSError: It cannot be read, or is a link to nothing, which a volume that is not mounted leaves behind.
    """
    try:
        yield from os.listdir(folder)
    except NotADirectoryError:
        return
    except FileNotFoundError:
        if os.path.islink(folder):
            raise
