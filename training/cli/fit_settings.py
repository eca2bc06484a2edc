"""The data settings of a fit: what is done with its checkpoint reads the data as it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dubio.models.checkpoint.data_record import DataRecord
from dubio.training.cli import configs, quick
from dubio.training.cli.messages import note, options
from dubio.training.cli.quick import Setting

LONGEST = 80  # signs of a value in a message


def complete(args: Sequence[str], record: DataRecord, path: Path) -> list[str]:
    """The arguments of a command, and after them those of the fit that the command line does not set itself.

    What a configuration sets otherwise is overruled, for the fit may have had it from its command line; that is said,
    and so is what the command line sets otherwise.

    Args:
        args: What stands behind the command.
        record: Of the checkpoint.
        path: Of the checkpoint.
    """
    used = record.divisions[0].settings if record.divisions else {}
    given = list(quick.settings_of(args))
    name = _class(given)
    if name is None or not used.keys() <= _options(name):  # the rows come from another class than those of the fit
        return list(args)
    line = _arguments(given, line=True)
    taken = {key: value for key, value in used.items() if key not in line}
    # Nobody has edited what comes with Dubio since the fit, so the fit's own command line set it otherwise.
    written = _arguments([each for each in given if not each.config or not configs.is_bundled(each.config)], line=False)
    overruled = [key for key in taken if key in written and _differ(written[key], taken[key])]
    if overruled:
        told = "; ".join(f"`data.{key}` is {_shown(taken[key])}, not {_shown(written[key])}" for key in overruled)
        note(
            f"the data are read as at the fit of {path}, not as configured: {told}. What the command line says with "
            "`--data.<name>` would be taken."
        )
    # What the network does not see stays unseen, whatever is said to be ignored besides.
    others = [key for key in line if key in used and key != "ignore" and _differ(line[key], used[key])]
    if others:
        told = "; ".join(f"`data.{key}` is {_shown(line[key])} and was {_shown(used[key])}" for key in others)
        note(f"the data are read otherwise than at the fit of {path}: {told}.")
    return [*args, "--config", json.dumps({"data": {"class_path": name, "init_args": taken}})]


def _class(given: Sequence[Setting]) -> str | None:
    """The class of the data, as it is written."""
    paths = [each.value for each in given if each.key in ("data", "data.class_path")]
    trees = [tree.get("class_path") for tree in map(_tree, paths) if tree]
    names = [*(path for path in paths if isinstance(path, str) and not _tree(path)), *trees]
    return names[-1] if names else None


def _options(name: str) -> set[str]:
    """What the class can be told; nothing where there is no such class, which the parser tells."""
    try:
        return set(options(name if "." in name else f"{quick.HOMES['data']}.{name}"))
    except (ImportError, AttributeError, ValueError):
        return set()


def _arguments(given: Sequence[Setting], line: bool) -> dict[str, Any]:
    """The arguments of the data's class that the command line gives, or its configurations."""
    found: dict[str, Any] = {}
    for key, value, config in given:
        section, *path = key.split(".")
        if section != "data" or (config is None) != line:
            continue
        tree = _tree(value) if path in ([], ["init_args"]) else {}
        for inner, each in quick.leaves("", tree.get("init_args", tree)) if tree else [(".".join(path), value)]:
            found[inner.removeprefix("init_args.").split(".")[0]] = each if config else _value(each)
    return found


def _tree(value: Any) -> Mapping[str, Any]:
    parsed = _value(value)
    return parsed if isinstance(parsed, Mapping) else {}


def _value(text: Any) -> Any:
    """What a text on a command line stands for."""
    try:
        return yaml.safe_load(text) if isinstance(text, str) else text
    except yaml.YAMLError:
        return text


def _shown(value: Any) -> str:
    """As it is written in a configuration; a long list is cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _differ(one: Any, other: Any) -> bool:
    """Whether two values are not the same; the order of names in a list is a matter of taste, and so is 1 or '1'."""
    one, other = (sorted(map(str, each)) if isinstance(each, list | tuple) else str(each) for each in (one, other))
    return bool(one != other)
