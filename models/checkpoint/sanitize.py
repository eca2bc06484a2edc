"""Sanitizing: plain data and tensors of a checkpoint, checked and copied out of the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dubio.models.errors import ModelError, UnreadableCheckpoint

MAX_VALUES = 2**19  # in the metadata, shared ones counted every time: a row of many numbers has a mean for each
MAX_DEPTH = 12
MAX_LENGTH = 256  # characters of a string or a key


class Sanitizer:
    """Copies nested dicts, lists, strings, numbers and tensors, and refuses everything else.

    The copy shares nothing with itself: a few bytes can otherwise describe a list of a billion references.

    Args:
        max_bytes: What all tensors together may take, the size of the file.
    """

    def __init__(self, max_bytes: int) -> None:
        self._bytes = max_bytes
        self._values = MAX_VALUES

    def copy(self, value: object, where: str, depth: int = MAX_DEPTH) -> object:
        """A copy of ``value``.

        Raises:
            ModelError: If it is anything else; names the field ``where`` and the rule.
        """
        self._values -= 1
        if self._values < 0 or depth == 0:
            raise ModelError(f"field `{where}`: expected at most {MAX_VALUES} values, at most {MAX_DEPTH} deep.")
        if isinstance(value, dict):
            return {_key(key, where): self.copy(item, f"{where}.{key}", depth - 1) for key, item in items(value)}
        if isinstance(value, list | tuple):
            copies = [self.copy(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
            return copies if isinstance(value, list) else tuple(copies)
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, str) and len(value) > MAX_LENGTH:
            raise ModelError(f"field `{where}`: expected at most {MAX_LENGTH} characters, but got {len(value)}.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ModelError(f"field `{where}`: expected an integer of 64 bits, but got {value.bit_length()} bits.")
        if value is not None and not isinstance(value, str | int | float):
            raise ModelError(
                f"field `{where}`: expected a dict, a list, a string, a number or a tensor, but got "
                f"{type(value).__name__}."
            )
        return value

    def _tensor(self, tensor: Tensor, where: str) -> Tensor:
        check_tensor(tensor, where)
        self._bytes -= tensor.numel() * tensor.element_size()
        if self._bytes < 0:  # a stride of 0 turns four bytes into a matrix of any size
            raise ModelError(f"field `{where}`: the tensors claim more bytes than the file has.")
        return tensor.detach().clone(memory_format=torch.contiguous_format)


def items(mapping: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The items of a dict, even of an ordered one whose file gave it an attribute called ``items``."""
    return dict.items(mapping)


def check_tensor(tensor: Tensor, where: str) -> None:
    """Refuse a tensor that is not dense and in memory, or that carries attributes which could shadow its methods.

    Raises:
        ModelError: If it is such a tensor; names the field ``where`` and the rule.
    """
    if type(tensor) not in (Tensor, nn.Parameter) or vars(tensor):
        raise ModelError(f"field `{where}`: expected a tensor without attributes, but got {type(tensor).__name__}.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
        raise ModelError(f"field `{where}`: expected a dense tensor that the file holds, but got {tensor.layout}.")


def check_state(path: str | Path, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a state dict with a tensor that `check_tensor` refuses, or with more bytes than its file has.

    Args:
        path: Of the file.
        tensors: By name.
        where: What stands before the names in messages.

    Raises:
        UnreadableCheckpoint: Names the file, the field and the rule.
    """
    try:
        for name, tensor in tensors.items():
            check_tensor(tensor, ascii(f"{where}{name}"[:200])[1:-1])
    except ModelError as error:
        raise UnreadableCheckpoint(path, str(error)) from error
    claimed, size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), os.path.getsize(path)
    if claimed > size:  # a stride of 0 turns four bytes into a matrix of any size
        raise UnreadableCheckpoint(
            path, f"field `state_dict`: the tensors claim {claimed} bytes, but the file has {size}."
        )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or len(key) > MAX_LENGTH or not key.isprintable():
        raise ModelError(f"field `{where}`: expected its keys to be names, but got one of type {type(key).__name__}.")
    return key
