"""Help and mistyped names, answered from the sources: the parser's own answer takes seconds of imports."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from dubio.training.cli import configs, settings, signatures
from dubio.training.cli.messages import COMMANDS, DESCRIPTION, PREDICT, no_command, no_option, no_setting
from dubio.training.cli.settings import CHOSEN, SECTIONS, TRAINER, VERBS
from dubio.training.errors import TrainingError

HELP = ("-h", "--help")
_CONFIG = ("-c", "--config")
# Where a class whose name stands alone is looked for.
HOMES = {"data": "dubio.training", "model": "dubio.training", "network": "dubio.models", "optimizer": "torch.optim"}


def answer(args: Sequence[str]) -> None:
    """Print the help that is asked for, or refuse a name that does not exist; the rest is left to the parser.

    Args:
        args: The command line.

    Raises:
        TrainingError: There is no such command or setting.
        SystemExit: The help is printed.
    """
    if not args:
        raise TrainingError(f"Expected a command, but got none; known: {', '.join([*VERBS, *COMMANDS])}.")
    command, rest = args[0], args[1:]
    if command in HELP:
        _top().parse_args(["--help"])
    if not command.startswith("-") and command not in VERBS:
        raise TrainingError(no_command(command, [*VERBS, *COMMANDS]))
    if command in VERBS and any(each in HELP for each in rest) and settings.of(command):
        _verb(command).parse_args(["--help"])
    if command in VERBS:
        check(command, rest)


def check(verb: str, args: Sequence[str], more: Collection[str] = ()) -> None:
    """Refuse a setting that does not exist, on the command line or in a file.

    Args:
        verb: The command; one of `VERBS`.
        args: What stands behind it.
        more: Settings that it takes beside its own.

    Raises:
        TrainingError: Names the setting, and the nearest one that there is.
    """
    told = settings.of(verb)
    if told is None:
        return
    known = {*told, *more}
    chosen: dict[str, Any] = {}
    for key, value, _ in settings_of(args):
        section, _, rest = key.partition(".")
        if section not in known or (section in SECTIONS and rest and f"{section}.{rest.split('.')[0]}" not in known):
            raise TrainingError(no_setting(key, known))
        if section in CHOSEN:
            _choose(chosen.setdefault(section, {}), rest.split(".") if rest else [], value)
    for name in CHOSEN:
        _check_class(name, name, chosen.get(name, {}))


class Setting(NamedTuple):
    """A setting that is given, as `trainer.max_epochs`, its value, and the configuration that gives it, if one does."""

    key: str
    value: Any
    config: str | None


def settings_of(args: Sequence[str]) -> Iterator[Setting]:
    """Every setting of a command line; those of configurations where they are named."""
    position = 0
    while position < len(args):
        option, has_value, value = args[position].partition("=")
        position += 1
        if not option.startswith("-") or option == "--":
            continue
        if not has_value and position < len(args) and not args[position].startswith("--"):
            value = args[position]
            position += 1
        if option in _CONFIG:
            yield from (Setting(*leaf, config=value) for leaf in leaves("", _read(value)))
        elif option.startswith("--") and not option.endswith(".help"):
            yield Setting(option[2:].removesuffix("+"), value, config=None)


def _read(config: str) -> Any:
    file = configs.find(config)
    try:
        return yaml.safe_load(config if file is None else file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # the parser says what is wrong


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The settings in a tree of them, the class before its arguments."""
    if isinstance(value, dict) and value and all(isinstance(each, str) for each in value):
        for name, item in sorted(value.items(), key=lambda pair: pair[0] != "class_path"):
            yield from leaves(f"{key}.{name}" if key else name, item)
    elif key:
        yield key, value


def _choose(node: dict[str, Any], path: list[str], value: Any) -> None:
    """Note a class, or an argument of one, in a tree of classes and their arguments."""
    if path in ([], ["class_path"]):
        if node.get("class_path") != value:
            node.clear()  # another class has other arguments
        node["class_path"] = value
        return
    if path == ["init_args"] or path[0] == "dict_kwargs":
        return
    first, *rest = path[1:] if path[0] == "init_args" else path
    arguments = node.setdefault("arguments", {})
    inner = arguments.setdefault(first, {})
    if rest or isinstance(value, str):
        _choose(inner, rest, value)


def _check_class(where: str, name: str, node: Mapping[str, Any]) -> None:
    path = node.get("class_path")
    if not isinstance(path, str):
        return
    path = path if "." in path or name not in HOMES else f"{HOMES[name]}.{path}"
    signature = signatures.of(path) if path.startswith(("dubio.", "torch.")) else None
    if signature is None or not signature.complete:
        return
    for argument, inner in node.get("arguments", {}).items():
        if argument not in signature.arguments:
            raise TrainingError(no_option(where, path, argument, signature.arguments))
        _check_class(f"{where}.init_args.{argument}", argument, inner)


def _top() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dubio-train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar=f"{{{','.join([*VERBS, *COMMANDS])}}}")
    for verb in VERBS:
        commands.add_parser(verb, help=_summary(verb), add_help=False)
    for name, told in COMMANDS.items():
        commands.add_parser(name, help=told, add_help=False)
    return parser


def _verb(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"dubio-train {verb}",
        usage=f"dubio-train {verb} --config FILE [--config FILE ...] [--SETTING VALUE ...]",
        description=f"{_summary(verb)}\n\nEvery setting may stand in a file and on the command line, which wins.",
        epilog=textwrap.dedent("""\
            `--data.help dubio.training.Table` and `--model.help dubio.training.Classifier` explain a class and its
            arguments, `--trainer.callbacks.help EarlyStopping` and `--trainer.logger.help TensorBoardLogger` too.
            `--print_config` shows every setting and its value."""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    groups = {name: parser.add_argument_group(f"{name}: {_class(path)}") for name, path in SECTIONS.items()}
    for key, each in (settings.of(verb) or {}).items():
        if key in SECTIONS:
            continue
        facts = [f"type: {each.type}"] if each.type else []
        facts += [] if each.default is None else [f"default: {each.default}"]
        told = " ".join([*each.help.split(), f"({', '.join(facts)})" if facts else ""]).strip()
        group = groups.get(key.partition(".")[0], parser)
        group.add_argument(f"--{key}", metavar="VALUE", help=told.replace("%", "%%"))
    return parser


def _summary(verb: str) -> str:
    if verb == "predict":
        return PREDICT
    signature = signatures.of(TRAINER, verb)
    return signature.summary if signature else ""


def _class(path: str) -> str:
    signature = signatures.of(path)
    return signature.summary if signature else path
