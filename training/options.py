"""Options of the data modules, as a message names them: so that they can be typed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable

import yaml


def named(option: str) -> str:
    """An option without its value: on the command line, and in a file."""
    return f"`--data.{option}` (`data.init_args.{option}` in a configuration)"


def typed(option: str, value: str) -> str:
    """An option with a name as its value, as a shell takes it."""
    return f"`--data.{option} {shlex.quote(value)}`"


def typed_list(option: str, values: Iterable[str]) -> str:
    """An option with a list of names as its value, each once. It replaces the list of a configuration, so that one has
    to be among the values."""
    listed = ", ".join(map(_scalar, dict.fromkeys(values)))
    return f"`--data.{option} {shlex.quote(f'[{listed}]')}`"


def _scalar(name: str) -> str:
    """The name as YAML reads it, in which `no` is no text and a comma ends one."""
    plain = re.fullmatch(r"\w[\w .-]*(?<! )", name) and yaml.safe_load(name) == name
    return name if plain else json.dumps(name, ensure_ascii=False)
