"""State dicts: a network's weights by name, found in a checkpoint that somebody else's code wrote, and hashed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dubio.models.checkpoint import sanitize
from dubio.models.errors import UnreadableCheckpoint

MAX_DEPTH = 4  # {"checkpoint": {"model": {"state_dict": ...}}} is as deep as anyone nests
MAX_PREFIXES = 16  # that are tried in one dict, the likeliest first
LISTED = 3  # names of each kind in an error
LIGHTNINGS = "state_dict."  # where Lightning keeps what it validates; averaging callbacks keep more beside it


@dataclass(frozen=True)
class _Fit:
    """How the tensors under one prefix fit a network."""

    where: str  # keys that lead to the dict, each with a dot behind it
    prefix: str
    weights: dict[str, Tensor]  # those that fit, under the network's names
    wrong: tuple[str, ...]  # what does not fit, by kind

    @property
    def flag(self) -> str:
        return f"`--key_prefix {(self.where + self.prefix)[:200]!r}`"


def find(
    path: str | Path, content: Mapping[str, Any], network: nn.Module, prefix: str | None = None
) -> dict[str, Tensor]:
    """The network's parameters and buffers, wherever the content has them and whatever stands before their names.

    Args:
        path: Of the file, for messages and for its size.
        content: Of the file, as `dubio.models.checkpoint.file.read_content` gives it: a state dict, or dicts
            around one.
        network: Says which names and shapes are wanted; its values do not matter. If all of it is one module, as in a
            wrapper, the file may hold the names of that module.
        prefix: What stands before the network's names, such as ``backbone.``, with or without the keys that lead
            there; by default the only one that fits.

    Returns:
        The tensors under the network's names, their floats in the network's precision.

    Raises:
        UnreadableCheckpoint: If nothing fits, more than one does, or a tensor is not dense data that the file holds.
    """
    expected = network.state_dict()
    dicts = list(_dicts(dict(content)))
    fits: list[_Fit] = []
    asked: list[_Fit] = []
    whole: list[_Fit] = []
    for wrapper in dict.fromkeys(("", _wrapper(expected))):
        wanted = {name.removeprefix(wrapper): tensor for name, tensor in expected.items()}
        tried = [_fit(wanted, *each, before) for each in dicts for before in _prefixes(wanted, each[1])]
        fits += tried
        asked += [fit for fit in tried if prefix in (None, fit.prefix, fit.where + fit.prefix)]
        whole = [fit for fit in asked if not fit.wrong]
        if whole:
            break
    whole = [fit for fit in whole if fit.where == LIGHTNINGS] or whole
    if len(whole) > 1:
        flags = " or ".join(fit.flag for fit in whole[:LISTED])
        raise UnreadableCheckpoint(path, f"has weights that fit the network {len(whole)} times; choose with {flags}.")
    if not whole:
        names = [where + name for where, state in dicts for name in state]
        raise UnreadableCheckpoint(path, _refusal(network, prefix, asked, fits, names))
    (fit,) = whole
    sanitize.check_state(path, fit.weights, fit.where + fit.prefix)
    return {wrapper + name: tensor.to(expected[wrapper + name].dtype) for name, tensor in fit.weights.items()}


def _wrapper(names: Iterable[str]) -> str:
    """What all names begin with, if it is one module."""
    first = {name[: name.find(".") + 1] for name in names}
    return first.pop() if len(first) == 1 else ""


def _dicts(content: dict[str, Any], where: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The tensors by name of every dict that has some, and the keys that lead there."""
    named = {key: value for key, value in sanitize.items(content) if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    for key, value in named.items():
        if isinstance(value, dict) and depth > 1:
            yield from _dicts(value, f"{where}{key}.", depth - 1)


def _prefixes(expected: Iterable[str], state: Iterable[str]) -> list[str]:
    """What stands before the expected names, most frequent first; that of the whole network is among them."""
    wanted = set(expected)
    counted: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for at in range(len(parts)):
            if ".".join(parts[at:]) in wanted:
                counted["".join(f"{part}." for part in parts[:at])] += 1
    return [prefix for prefix, _ in counted.most_common(MAX_PREFIXES)]


def _fit(expected: Mapping[str, Tensor], where: str, state: Mapping[str, Tensor], prefix: str) -> _Fit:
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    misshapen = [name for name in expected if name in own and not _alike(expected[name], own[name])]
    kinds = {
        "missing": [repr(name) for name in expected if name not in own],
        "unexpected": [repr(name[:100]) for name in own if name not in expected and not _counts(name, own[name])],
        "misshapen": [f"{name!r} should be {_say(expected[name])}, but is {_say(own[name])}" for name in misshapen],
    }
    wrong = tuple(f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names)
    weights = {name: own[name] for name in expected if name in own and name not in misshapen}
    return _Fit(where, prefix, weights, wrong)


def _counts(name: str, tensor: Tensor) -> bool:
    """Whether it is the places, 0, 1, ..., which older releases of transformers saved beside the weights."""
    if not name.endswith("position_ids") or tensor.is_floating_point() or tensor.is_complex():
        return False
    return torch.equal(tensor.flatten(), torch.arange(tensor.numel(), dtype=tensor.dtype))


def _alike(expected: Tensor, actual: Tensor) -> bool:
    # Another precision is no other network: torch would convert it, too.
    same = expected.dtype == actual.dtype or (expected.is_floating_point() and actual.is_floating_point())
    return same and expected.shape == actual.shape


def _refusal(network: nn.Module, prefix: str | None, asked: list[_Fit], fits: list[_Fit], names: list[str]) -> str:
    name = type(network).__name__
    for fit in fits:
        if not fit.wrong:
            return f"the weights do not fit the network {name} under the prefix {prefix!r}; {fit.flag} would fit."
    if not fits:
        wanted, there = _some(map(repr, network.state_dict())), _some(repr(name[:100]) for name in names)
        has = f"has {there}" if names else "has no tensors by name"
        return (
            f"the weights do not fit the network: {name} needs {wanted}, but the file {has}. Set "
            "`model.init_args.network` to the class that the file was trained with."
        )
    best = max(asked or fits, key=lambda fit: len(fit.weights))
    return (
        f"the weights do not fit the network {name}; the nearest is {best.flag}, with {'; '.join(best.wrong)}. Set "
        "`model.init_args.network` to the class and the arguments that the file was trained with."
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:LISTED]) + (", ..." if len(listed) > LISTED else "")


def _say(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over parameters and buffers: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
