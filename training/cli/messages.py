"""What the command line says: its help, and a mistake in one line with what was probably meant."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Collection, Iterable, Sequence
from pkgutil import resolve_name

from dubio.models.errors import did_you_mean, nearest, printable
from dubio.training.cli import values
from dubio.training.errors import DataWarning

TRACEBACK = "DUBIO_TRACEBACK"
FLAG = "--traceback"
INTERRUPTED = 128 + 2  # the status of what Ctrl-C ended
CHECKPOINT = ("--ckpt", "--ckpt_path")  # the option of a checkpoint: each command takes both

# Commands that are no verb of the trainer; `dubio.training.cli.main` hands the rest of the line to them.
COMMANDS = {
    "audit": "Say which dropout sites of a calibrated checkpoint are sampled, at which rates, and how.",
    "compare": "Train with and without dropout, draw both, and measure both on the test rows.",
    "configs": "List the configurations that come with Dubio, or write one out to start from.",
    "report": "Write a page, pictures and a JSON file of all that was measured of a calibrated checkpoint.",
}

# Lightning's verb of that name means something else.
PREDICT = "Answer every row of a file as the service would, and write a table."

DESCRIPTION = f"""Train a classifier with dropout, calibrate it, and write one checkpoint that can be served.

  dubio-train configs                                      lists the configurations that come with Dubio
  dubio-train configs digits_mlp                           writes one to digits_mlp.yaml, to start from
  dubio-train fit --config digits_mlp                      train, calibrate, write runs/digits_mlp/model.ckpt
  dubio-train fit --config a.yaml                          the same with a file of your own
  dubio-train fit --config a.yaml --config b.yaml          b adds to a and overrides it
  dubio-train fit --config a.yaml --trainer.max_epochs 5   so does an argument
  dubio-train fit --config a.yaml --print_config           shows every setting
  dubio-train fit --help                                   explains every setting
  dubio-train calibrate --config a.yaml --calibration.alpha 0.01
                                                           makes another promise for the same weights
  dubio-train audit --ckpt runs/a/model.ckpt               says which dropout is sampled, and how
  dubio-train compare --config a.yaml                      trains with and without dropout and draws both
  dubio-train report --ckpt runs/a/model.ckpt              writes a page of figures, to read and to send
  dubio-train test --config a.yaml                         tests runs/<name>/model.ckpt
  dubio-train predict --config a.yaml --data.path new.csv  answers every row of a file, with or without labels

Classes of your own are found in the folder you start from: `class_path: my_nets.Net` is Net in my_nets.py.
Add {FLAG}, or set {TRACEBACK}=1, to see where an error came from."""

# As jsonargparse words them.
_KEY = re.compile(r'Parser key "([\w.]+)"')
_CLASS = re.compile(r"class_path(?: |=)'([\w.]+)'")
_OPTION = re.compile(r"Option '([\w.]+)' is not accepted")
_SETTING = re.compile(r"(?:does not accept option '|unrecognized arguments: --?)([\w.-]+)")
_COMMAND = re.compile(r"argument subcommand: invalid choice: '([^']*)' \(choose from ([^)]*)\)")
_NO_CLASS = re.compile(r"Expected a dot import path string: ([\w.]+)|module '([\w.]+)' has no attribute '(\w+)'")
_REQUIRED = re.compile(r"the following arguments are required: ([\w.]+(?:, [\w.]+)*)")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>")

_ABSTRACT = "Expected an instantiatable class"

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

_HELP = "see `--help`."

_FORMAT_WARNING = warnings.formatwarning  # Python's own


def one_line(error: BaseException) -> str:
    """The message of an error on one line, without what jsonargparse pads its messages with."""
    lines = [line.strip() for line in str(error).splitlines()]
    facts = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(_PADDING))
    return printable(_TYPE.sub(r"`\1`", _LOOKUP.sub("", facts))) or type(error).__name__


def warn(message: str) -> None:
    """Say on one line of stderr what a user should know, though the work goes on."""
    print(f"dubio-train: warning: {printable(message)}", file=sys.stderr)


def note(message: str) -> None:
    """Say on one line of stderr what was done that a user may not expect."""
    print(f"dubio-train: note: {printable(message)}", file=sys.stderr)


def explain(error: BaseException, settings: Collection[str]) -> str:
    """What is wrong with a command line, and the nearest name to one that does not exist.

    Args:
        error: What the parser raised.
        settings: Every key that there is, such as `trainer.max_epochs`.

    Returns:
        One line; an error that is not known is left in the parser's words.
    """
    text = one_line(error)
    where, classes = ".init_args.".join(_KEY.findall(text)), _CLASS.findall(text)
    option, setting, command = _OPTION.search(text), _SETTING.search(text), _COMMAND.search(text)
    absent, required = _absent_class(text, classes), _REQUIRED.search(text)
    if absent and not values.NUMBERS & {*values.expected(text)}:
        return f"`{where}`: there is no class `{absent}`; {_nearest_class(absent)}"
    if option and classes:
        return no_option(where, classes[-1], option[1], options(classes[-1]))
    unknown = option or setting
    if unknown:
        return no_setting(unknown[1], settings)
    if command and command[1] in COMMANDS:
        return f"Expected `{command[1]}` as the first argument, but options came before it; put them behind it."
    if required and not where:
        lacking = sorted("--" + name.rpartition(".")[2] for name in required[1].split(", "))
        if {*lacking} <= {"--model", "--data"}:
            return (
                f"Expected {' and '.join(lacking)}, but got {'neither' if len(lacking) > 1 else 'none'}; give "
                "`--config NAME`: a file, or a configuration that `dubio-train configs` lists."
            )
    if required and where and classes:
        return f"`{where}`: {classes[-1]} needs {_quoted(required[1].split(', '))}; {_class_help(where, classes[-1])}"
    if where and _ABSTRACT in text:
        return (
            f"Expected the class of `{where}` before its options, but got none; give `--config`, or `--{where} CLASS`, "
            "before them."
        )
    return (values.explain(where, text) if where else None) or text


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is printed, in place of `warnings.formatwarning`: one about a user's data in one line."""
    if issubclass(category, DataWarning):
        return f"dubio-train: warning: {printable(str(message))}\n"
    return _FORMAT_WARNING(message, category, filename, lineno, line)


def no_setting(key: str, settings: Collection[str]) -> str:
    """That there is no such setting."""
    hint = did_you_mean(key, settings, did_you_mean(key.split(".", maxsplit=1)[0], settings, _HELP))
    return f"there is no setting `{key}`; {hint}"


def no_option(where: str, path: str, option: str, options: Iterable[str]) -> str:
    """That a class has no such option."""
    names = sorted({name.split(".")[0] for name in options})
    others = f"it has {_quoted(names)}; {_class_help(where, path)}" if names else f"it has none; {_HELP}"
    return f"`{where}`: {path} has no option `{option}`; {did_you_mean(option, names, others)}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _class_help(where: str, path: str) -> str:
    return f"`--{where.replace('.init_args', '')}.help {path}` explains its options."


def no_command(name: str, known: Collection[str]) -> str:
    """That there is no such command."""
    hint = did_you_mean(name, known, f"known: {', '.join(known)}.")
    return f"there is no command `{name}`; {hint}"


def _absent_class(text: str, classes: list[str]) -> str:
    """The import path that led nowhere, or nothing: a module that exists may itself import one that does not."""
    name, module = _NO_CLASS.search(text), _NO_MODULE.search(text)
    if name:
        return name[1] or f"{name[2]}.{name[3]}"
    return classes[-1] if module and classes and f"{classes[-1]}.".startswith(f"{module[1]}.") else ""


def _nearest_class(path: str) -> str:
    from dubio import models, training

    module, _, name = path.rpartition(".")
    others = (module, "pytorch_lightning.callbacks", "pytorch_lightning.loggers")  # what is nowhere was not imported
    homes = [home for home in (*map(sys.modules.get, others), models, training) if home is not None]
    known = {
        each: f"{home.__name__}.{each}"
        for home in homes
        for each in getattr(home, "__all__", vars(home))
        if isinstance(getattr(home, each), type)
    }
    # Of a module that is nowhere only a known class is meant for Dubio's: `models.MLP` is what it was called before.
    near = nearest(name, known, cutoff=1 if module and module not in sys.modules else 0.6)
    return f"did you mean `{known[near]}`?" if near else "write its import path, such as `my_nets.Net`."


def options(path: str) -> Iterable[str]:
    """What a class can be told, by the parser's reckoning."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(resolve_name(path))
    return parser.get_defaults().keys()
