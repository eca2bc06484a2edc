"""The job: what is scored, by what, and how, as plain data that any process can take up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dubio.models.answer_table import SUFFIXES
from dubio.models.checkpoint import file
from dubio.models.checkpoint.schema import Metadata
from dubio.models.errors import InvalidInput
from dubio.models.inputs.names import tidy
from dubio.scale.readers.rows import Reading

# Roles of columns that a fit did not show to the network.
_UNSEEN = ("target", "split", "group", "time")


@dataclass(frozen=True)
class Job:
    """What is scored.

    Attributes:
        checkpoints: Paths; several are one ensemble.
        input: Path of the source.
        suffix: Of the output, one of `SUFFIXES`.
        reading: How the source is read.
        model: Arguments of `ScoreBatch`.
        stops: Whether a bad row ends everything; if not, it is rejected.
        part_rows: Rows of the source in a part of the output.
    """

    checkpoints: tuple[str, ...]
    input: str
    suffix: str
    reading: Reading
    model: Mapping[str, Any]
    stops: bool
    part_rows: int

    def identity(self, stamp: str) -> dict[str, Any]:
        """What parts of an output have to have in common, as plain data.

        Args:
            stamp: Of the source.
        """
        return {
            "input": self.input,
            "stamp": stamp,
            "checkpoints": [_sha256(Path(path)) for path in self.checkpoints],
            "reading": asdict(self.reading),
            "samples": self.model.get("samples"),
            "batch_invariant": self.model.get("batch_invariant", False),
            "part_rows": self.part_rows,
            "suffix": self.suffix,
        }


def check_output(path: Path) -> None:
    """Refuse a file whose format is not known.

    Raises:
        InvalidInput: If its name has another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise InvalidInput(
            f"Expected the output to end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, but got {path.name!r}."
        )


def as_trained(reading: Reading, path: str | Path, decimal: str | None = None) -> tuple[Metadata, Reading]:
    """What a checkpoint says about itself, and how it says that files are read, where nobody says otherwise.

    Args:
        reading: What was said.
        path: Of the checkpoint.
        decimal: What was said about it.

    Raises:
        UnreadableCheckpoint: If it cannot be read.
    """
    metadata = file.read(path).metadata
    known = metadata.divisions[0].settings if metadata.divisions else {}
    unseen = [*(known.get("ignore") or ()), *(known.get(role) for role in _UNSEEN)]
    inputs = metadata.input.columns
    seen = {column.name for column in inputs} if inputs is not None else set()
    return metadata, replace(
        reading,
        ids=_tidied(reading.ids),
        ignore=_tidied([*reading.ignore, *(name for name in unseen if name and name not in seen)]),
        field=reading.field or (known.get("text") if metadata.input.kind == "text" else None),
        separator=reading.separator or known.get("separator"),
        decimal=decimal or known.get("decimal") or reading.decimal,
    )


def _tidied(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(tidy, names)))


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
