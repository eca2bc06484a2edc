"""A folder with one checkpoint in it, as KServe leaves in /mnt/models: it stands for that checkpoint."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from dubio.serving.errors import InvalidModelSource
from dubio.serving.repository.directory import ModelDirectory
from dubio.serving.repository.source import ModelSource

_SHOWN = 5


def checkpoint_of(source: ModelSource) -> ModelSource:
    """Find the checkpoint that a source stands for; looked for anew each time, because a volume's files may change.

    Args:
        source: As the operator named it.

    Returns:
        The source itself where it names files; for a folder one of the checkpoint in it, which must not lead out of
        the folder. Links inside it, which Kubernetes makes of a ConfigMap's files, are followed.

    Raises:
        InvalidModelSource: The folder does not hold exactly one checkpoint.
    """
    folders = [path for path in source.paths if os.path.isdir(path)]
    if not folders:
        return source
    if source.also:
        raise InvalidModelSource(
            f"Expected the checkpoints of the ensemble {source.name!r}, but {folders[0]} is a folder; name the file in "
            "it."
        )
    folder = source.path
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InvalidModelSource(f"Expected to read the folder {folder}, but {error.strerror}.") from error
    checkpoints = [name for name in names if name.endswith(".ckpt")]
    if len(checkpoints) != 1:
        raise InvalidModelSource(_complaint(source.name, folder, names, checkpoints))
    return replace(source, path=folder / checkpoints[0], root=folder)


def _complaint(name: str, folder: Path, names: list[str], checkpoints: list[str]) -> str:
    expected = f"Expected one checkpoint in the folder {folder}, but"
    if checkpoints:
        paths = [str(folder / each) for each in checkpoints[:_SHOWN]]
        ensemble = "+".join(paths) if len(paths) == len(checkpoints) else f"{paths[0]}+{paths[1]}+..."
        return (
            f"{expected} it holds {len(checkpoints)} ({_list(checkpoints)}); name the file, {name}={paths[0]}, or, as "
            f"one ensemble, {name}={ensemble}"
        )
    versions = ModelDirectory(folder).scan().sources
    if versions:
        found = versions[0].path.relative_to(folder)
        return f"{expected} it is a model repository (it holds {found}); serve it with --model-repository {folder}"
    return (
        f"{expected} no file in it ends in .ckpt (it holds {_list(names) or 'nothing'}); put a checkpoint there, which "
        "`dubio-train fit` writes as model.ckpt."
    )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + more
