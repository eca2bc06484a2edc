"""Checkpoint files: read without running anything they name, and written so that no reader sees half a file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from dubio.models.checkpoint import archive, safetensors_file, sanitize, unpickler
from dubio.models.checkpoint.data_record import KEY as DATA_KEY
from dubio.models.checkpoint.data_record import DataRecord
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.models.checkpoint.schema import FORMAT_VERSION, KEY, Metadata
from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.models.spec import describe_validation_error

PREFIX = "network."  # of the network's weights among those of the Lightning module


@dataclass(frozen=True)
class Checkpoint:
    """A servable checkpoint as read from disk, its metadata validated, nothing built yet.

    Attributes:
        metadata: The ``dubio`` key.
        weights: Parameters and buffers of the network, without the prefix.
    """

    metadata: Metadata
    weights: dict[str, Tensor]


def read(path: str | Path) -> Checkpoint:
    """Read and validate a servable checkpoint.

    Raises:
        UnreadableCheckpoint: If the file is missing, damaged, not a Dubio checkpoint, or holds what is not plain data.
    """
    content = read_content(path)
    if KEY not in content:
        raise UnreadableCheckpoint(
            path, f"has no {KEY!r} section, so it is not calibrated; run `dubio-train calibrate` on it first."
        )
    version = content[KEY].get("format_version") if isinstance(content[KEY], dict) else None
    if type(version) is int and 0 < version < FORMAT_VERSION:
        raise UnreadableCheckpoint(
            path,
            f"was calibrated by an earlier version (`{KEY}.format_version` is {version}, not {FORMAT_VERSION}); run "
            "`dubio-train calibrate` on it again.",
        )
    try:
        metadata = Metadata.model_validate(sanitize.Sanitizer(os.path.getsize(path)).copy(content[KEY], KEY))
    except ModelError as error:
        raise UnreadableCheckpoint(path, str(error)) from error
    except ValidationError as error:
        raise UnreadableCheckpoint(path, f"field {describe_validation_error(error, KEY)}") from error
    return Checkpoint(metadata, network_weights(path, content))


def read_content(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of plain types and tensors, or the tensors of a file of safetensors, on the CPU.

    Raises:
        UnreadableCheckpoint: If the file is missing or damaged, or holds anything else.
    """
    if safetensors_file.is_one(path):
        return {**safetensors_file.read(path)}
    try:
        with archive.opened(path) as opened:
            content = unpickler.load(opened)
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, archive.MISSING) from error
    except UnreadableCheckpoint:
        raise
    except unpickler.Refused as error:
        raise UnreadableCheckpoint(path, f"{error}") from error
    except Exception as error:  # a dozen types on damaged or hostile files; all mean the same here
        cause = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UnreadableCheckpoint(
            path, f"is not a checkpoint of plain data and tensors, or it is damaged: {cause}"
        ) from error
    if not isinstance(content, dict):
        raise UnreadableCheckpoint(path, f"should hold a dict, but holds a {type(content).__name__}.")
    return dict(sanitize.items(content))


def network_weights(path: str | Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's parameters and buffers, without the Lightning module's prefix.

    Raises:
        UnreadableCheckpoint: If there are none, or the tensors claim more bytes than the file has.
    """
    state = content.get("state_dict")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in sanitize.items(state)
    ):
        raise UnreadableCheckpoint(path, "field `state_dict`: should be a dict of tensors by name.")
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in sanitize.items(state) if name.startswith(PREFIX)}
    if not weights:
        raise UnreadableCheckpoint(path, f"field `state_dict`: has no key that starts with {PREFIX!r}.")
    sanitize.check_state(path, weights, f"state_dict.{PREFIX}")
    return weights


def data_record(path: str | Path, content: Mapping[str, Any]) -> DataRecord | None:
    """What a checkpoint says about its data, be it one of a fit or servable.

    Args:
        path: Of the file.
        content: That was read from it.

    Returns:
        None if it says nothing: the weights come from elsewhere.

    Raises:
        UnreadableCheckpoint: If the record is not what it should be.
    """
    key = KEY if KEY in content else DATA_KEY
    held = content.get(key)
    if held is None:
        return None
    if not isinstance(held, dict):
        raise UnreadableCheckpoint(path, f"field `{key}`: expected a dict, but got {type(held).__name__}.")
    try:
        fields = {name: dict.get(held, name) for name in DataRecord.model_fields}
        record = DataRecord.model_validate(sanitize.Sanitizer(os.path.getsize(path)).copy(fields, key))
    except ModelError as error:
        raise UnreadableCheckpoint(path, str(error)) from error
    except ValidationError as error:
        raise UnreadableCheckpoint(path, f"field {describe_validation_error(error, key)}") from error
    return record if record.divisions else None


def explanation_record(path: str | Path, content: Mapping[str, Any]) -> ExplanationRecord | None:
    """What a servable checkpoint keeps to explain flags; None if it keeps nothing.

    Args:
        path: Of the file.
        content: That was read from it.

    Raises:
        UnreadableCheckpoint: If the record is not what it should be.
    """
    held = content.get(KEY)
    record = dict.get(held, "explanation") if isinstance(held, dict) else None
    if record is None:
        return None
    where = f"{KEY}.explanation"
    try:
        copied = sanitize.Sanitizer(os.path.getsize(path)).copy(record, where)
        return ExplanationRecord.model_validate(copied)
    except ModelError as error:
        raise UnreadableCheckpoint(path, str(error)) from error
    except ValidationError as error:
        raise UnreadableCheckpoint(path, f"field {describe_validation_error(error, where)}") from error


def write(content: dict[str, Any], destination: str | Path) -> None:
    """Write a checkpoint so that ``destination`` is at any time either the old file or the whole new one.

    Raises:
        UnreadableCheckpoint: If what was written could not be read back; the old file is still there.
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # or the new name might outlive a power cut, and the bytes not
        try:
            read(temporary)
        except UnreadableCheckpoint as error:
            raise UnreadableCheckpoint(
                destination, f"not written, because it could not be read: {error.reason}"
            ) from error
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
