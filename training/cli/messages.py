"""Hints: what a user probably meant by a key, an option or a class that does not exist."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from dubio import models, training
from dubio.training.cli.lightning_cli import OWN

# As jsonargparse words them; groups are the facts that a hint needs.
_OPTION = re.compile(r"Option '(?P<option>[\w.]+)' is not accepted")
_CLASS = re.compile(r"class_path(?: |=)'(?P<path>[\w.]+)'")
_KEY = re.compile(r'Parser key "(?P<key>[\w.]+)"')
_STRAY_KEY = re.compile(r"Subcommand '(?P<command>\w+)' does not accept option '(?P<key>[\w.]+)'")
_STRAY_ARGUMENT = re.compile(r"unrecognized arguments: (?P<argument>--?(?P<key>[\w.+-]+))")
_COMMAND = re.compile(r"argument subcommand: invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.*)\)")
_ATTRIBUTE = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
_NO_PATH = re.compile(r"Expected a dot import path string: (?P<given>[\w.]+)")
_TYPE = re.compile(
    r"Expected a <class '(?P<type>[\w.]+)'>\.?(?: Got value: (?P<got>.*))?(?: Given value: (?P<given>.*))?$"
)

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "collections.abc.Sequence": "a list",
    "collections.abc.Mapping": "keys with values",
}

# Where the classes are that an option may name without their module.
_HOMES: dict[str, tuple[Any, type]] = {
    "data": (training, pl.LightningDataModule),
    "model": (training, pl.LightningModule),
    "network": (models, nn.Module),
}


def told(message: str) -> str:
    """The message of jsonargparse in the words of the configuration, with what was probably meant.

    Args:
        message: on one line; one that is not known is left as it is.
    """
    for pattern, retell in _RETELLINGS:
        found = pattern.search(message)
        if found:
            return retell(found, message)
    return message


def nearest(given: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or the choices where none is near and they are few."""
    choices = sorted(set(known))
    # Of import paths the last part is compared, and capitals do not count: `mpl` is near `dubio.models.MLP`.
    by_tail = {choice.rpartition(".")[2].lower(): choice for choice in choices}
    near = get_close_matches(given.rpartition(".")[2].lower(), by_tail, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{by_tail[near[0]]}`?"
    return f"choose from {', '.join(choices)}." if 0 < len(choices) <= 30 else "see `--help`."


def _option(found: re.Match[str], message: str) -> str:
    option = found["option"]
    before, after = _CLASS.findall(message[: found.start()]), _CLASS.findall(message[found.end() :])
    # The innermost class comes right before the fact; only of a callable it is told behind.
    path = after[0] if "expects a function or a callable class" in message and after else (before or after or [""])[-1]
    key = ".init_args.".join(_KEY.findall(message)) or "this"
    return f"`{key}`: {path or 'the class'} has no option `{option}`; {nearest(option, _options(path))}"


def _stray(found: re.Match[str], message: str) -> str:
    key = found["key"].rstrip("+")
    head, dot, tail = key.rpartition(".")
    group = _groups().get(head)
    if group is not None:
        return f"`{head}` has no setting `{tail}`; {nearest(tail, group)}"
    top = {*_groups(), *_TOP}
    return f"there is no setting `{key}`; {nearest(key if not dot else key.split('.')[0], top)}"


def _command(found: re.Match[str], message: str) -> str:
    if found["given"] in OWN:
        return f"Expected `{found['given']}` as the first argument, but options came before it; put them behind it."
    known = [*re.findall(r"'?(\w+)'?", found["known"]), *OWN]
    return f"there is no command `{found['given']}`; {nearest(found['given'], known)}"


def _attribute(found: re.Match[str], message: str) -> str:
    module, name, keys = found["module"], found["name"], _KEY.findall(message)
    _, kind = _HOMES.get(keys[-1] if keys else "", (None, object))
    return f"there is no class `{module}.{name}`; {nearest(name, _classes(importlib.import_module(module), kind))}"


def _no_path(found: re.Match[str], message: str) -> str:
    keys, given = _KEY.findall(message), found["given"]
    home, kind = _HOMES.get(keys[-1] if keys else "", (None, object))
    if home is None:
        return f"`{'.init_args.'.join(keys)}`: there is no class `{given}`; write its import path."
    return f"`{'.init_args.'.join(keys)}`: there is no class `{given}`; {nearest(given, _classes(home, kind))}"


def _type(found: re.Match[str], message: str) -> str:
    key = ".init_args.".join(_KEY.findall(message))
    given = found["got"] or found["given"]
    if not key or not given:
        return message
    return f"`{key}`: expected {_KINDS.get(found['type'], found['type'])}, but got {given}."


_RETELLINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...] = (
    (_OPTION, _option),
    (_STRAY_KEY, _stray),
    (_STRAY_ARGUMENT, _stray),
    (_COMMAND, _command),
    (_ATTRIBUTE, _attribute),
    (_NO_PATH, _no_path),
    (_TYPE, _type),
)

_TOP = ("name", "runs", "threads", "seed_everything", "model", "data", "config", "ckpt_path", "output", "print_config")


def _groups() -> dict[str, Collection[str]]:
    return {
        "trainer": _parameters(pl.Trainer),
        "checkpoint": _parameters(ModelCheckpoint),
        "calibration": _parameters(training.CalibrationSettings),
        "model": ("class_path", "init_args"),
        "data": ("class_path", "init_args"),
    }


def _options(path: str) -> list[str]:
    try:
        return _parameters(resolve_name(path))
    except (ImportError, AttributeError, ValueError):
        return []


def _parameters(kind: type) -> list[str]:
    """The arguments of a class as the parser knows them, those that it passes on to others included."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind)
    return list(parser.get_defaults().keys())


def _classes(home: Any, kind: type) -> list[str]:
    """Import paths of the public classes of a module, without those that are there to be derived from."""
    named = [
        (name, found) for name, found in vars(home).items() if isinstance(found, type) and not name.startswith("_")
    ]
    return [
        f"{home.__name__}.{name}" for name, found in named if issubclass(found, kind) and not inspect.isabstract(found)
    ]


# What jsonargparse says around the fact: how it searched, and dumps of whole configurations.
_PADDING = (
    "Does not validate against any of the Union subtypes",
    "Subtypes:",
    "Errors:",
    "Given value type:",
    "Given value: Namespace(",
    "Given value: NestedArg(",
    # "or nothing at all" is an alternative that no user meant.
    "- Expected a <class 'NoneType'>",
)


# How the network's sizes are looked up in the data; what failed is the data.
_LOOKUP = re.compile(r"^Call to compute_fn of link .*? failed: ")


def one_line(error: BaseException) -> str:
    """The message of an error on one line, without what jsonargparse pads its messages with."""
    lines = [line.strip() for line in str(error).splitlines()]
    facts = [line.removeprefix("- ") for line in lines if line and not line.startswith(_PADDING)]
    return _LOOKUP.sub("", " ".join(facts)) or type(error).__name__
