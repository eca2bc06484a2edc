"""`dubio-serve`: from a command line to a running service, or to one line that says why not."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource, SettingsError

from dubio.models.checkpoint import archive
from dubio.models.errors import UnreadableCheckpoint
from dubio.serving import environment
from dubio.serving.compute.process import prepare
from dubio.serving.errors import InvalidModelSource, ProcessUnavailable
from dubio.serving.lifecycle import Lifecycle, end
from dubio.serving.repository.folder import checkpoint_of
from dubio.serving.repository.source import ModelSource
from dubio.serving.server import sockets, threads
from dubio.serving.server.supervisor import Supervisor
from dubio.serving.settings import SECTIONS, Settings
from dubio.serving.telemetry.log import configure_log

_REFUSED_BY_SYSTEM = 1
_WRONG_REQUEST = 2
_SECRETS = ("api_keys", "database_url")  # every user of a machine can read its command lines
_NO_OPTIONS = ("models", *_SECRETS)
_GRPC_LIBRARIES = ("grpc", "grpc_health")

_DESCRIPTION = """\
Serve trained models over HTTP. Every answer carries a deterministic prediction, the committee's mean and
standard deviation, its uncertainty, and a flag when the input does not look like the training data.
"""
_EPILOG = """\
examples:
  dubio-serve runs/digits_mlp/model.ckpt
      serves one model under its run's name, digits_mlp, on http://127.0.0.1:8000
  dubio-serve digits=runs/digits_mlp/model.ckpt fashion=runs/fashion_cnn/model.ckpt --host 0.0.0.0
      serves two, to the whole network; requests to /v1/predict go to the first
  dubio-serve digits=/mnt/models
      serves the one checkpoint in a folder, such as a mounted volume
  dubio-serve --model-repository models --model-control poll
      serves models/<name>/<version>/model.ckpt, and takes up what is put there later

then:
  curl http://127.0.0.1:8000/v1/models                  what is loaded
  open http://127.0.0.1:8000/                           a page to try it
  open http://127.0.0.1:8000/docs                       every route, with requests that run

Every option can be set in the environment: DUBIO_PORT=9000, DUBIO_MODELS=a=x.ckpt,b=y.ckpt; DUBIO_API_KEYS and
DUBIO_DATABASE_URL only there. The command line wins. docs/operations.md describes how to run the service.

signals: SIGTERM or Ctrl-C lets requests in flight finish; a second one ends the service at once. SIGHUP reads the keys'
file and the models again.

exit codes: 0 stopped by SIGTERM or Ctrl-C; 1 the system refused (port in use, no temporary folder), requests in flight
did not finish in time, or the device or the process that computes failed; 2 a wrong argument, setting or checkpoint;
130 or 143 ended by a second signal.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop, which ends the process.

    Args:
        argv: Arguments of the command line; None for those of this process.

    Returns:
        The exit code of a service that could not start.
    """
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        return _fail(f"{error}; dubio-serve --help lists what there is.", _WRONG_REQUEST)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        # What was given for a secret setting is not repeated.
        got = "" if "key" in field or field in _SECRETS else f", but got {first['input']!r}"
        why = first["msg"].removeprefix("Value error, ")
        where = "" if field in _NO_OPTIONS else f"; see --{field.replace('_', '-')} in dubio-serve --help"
        return _fail(f"setting {field}: {why}{got}{where}.", _WRONG_REQUEST)
    if not settings.models and settings.model_repository is None:
        return _fail(
            "name at least one checkpoint, for example runs/digits_mlp/model.ckpt, or a --model-repository.",
            _WRONG_REQUEST,
        )
    if (misnamed := _misnamed_keys(settings)) is not None:
        return _fail(misnamed, _WRONG_REQUEST)
    if settings.trusted:
        sys.path.append(os.getcwd())  # where the operator's own modules are; last, so that they hide nobody else's
    configure_log(settings.log_level)
    for line in environment.describe(os.environ, Settings.model_fields):
        logging.getLogger("dubio").warning(line)
    if (missing := _missing_temporary_folder()) is not None:
        return _fail(missing, _REFUSED_BY_SYSTEM)
    if settings.grpc_port is not None and (absent := _absent_libraries()):
        return _fail(
            f"setting grpc_port: it needs {absent}, which is not there; pip install 'dubio[grpc]', or leave it out.",
            _WRONG_REQUEST,
        )
    if (unreadable := _no_checkpoint(settings)) is not None:
        return _fail(unreadable, _WRONG_REQUEST)
    try:
        # Before the models load: nobody wants to wait for them to learn that the port is taken.
        bound = sockets.bind(settings.host, settings.port)
    except OSError as error:
        return _fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "choose another --port or --host.",
            _REFUSED_BY_SYSTEM,
        )
    where = sockets.url(bound)
    held: AbstractContextManager[object] = nullcontext()
    if settings.grpc_port is not None:
        try:
            held = grpc = sockets.hold(settings.host, settings.grpc_port)
        except OSError as error:
            return _fail(
                f"cannot listen on {settings.host} port {settings.grpc_port} for gRPC: {error.strerror}; choose "
                "another --grpc-port.",
                _REFUSED_BY_SYSTEM,
            )
        settings = settings.model_copy(update={"grpc_port": grpc.getsockname()[1]})
        where += f" and on {sockets.address(*grpc.getsockname()[:2])} for gRPC"

    def started(models: list[str]) -> None:
        logging.getLogger("dubio").info("Serving %s on %s", ", ".join(models) or "no model yet", where)

    settings = threads.divide(settings)
    with bound, held:
        if settings.workers > 1:
            code, message = Supervisor(settings, bound, started=started).run()
            return code if message is None else _fail(message, code)
        lifecycle = Lifecycle()
        lifecycle.obey_signals()
        try:
            process = prepare(settings)
        except ProcessUnavailable as error:
            return _fail(str(error), _REFUSED_BY_SYSTEM)

        # torch takes seconds to import, and `--help` or a port in use need none of it.
        from dubio.serving.server import server

        message = server.run(settings, bound, lifecycle, started=started, process=process)
        if message is not None:
            return _fail(message, _WRONG_REQUEST)
    end(0)


def _fail(message: str, code: int) -> int:
    print(f"dubio-serve: {message}", file=sys.stderr)
    return code


def _misnamed_keys(settings: Settings) -> str | None:
    """Why a service without keys should not start: nobody names a variable so who wants it open to everybody."""
    if settings.api_keys is not None or settings.api_keys_file is not None:
        return None
    for name in environment.unknown(os.environ, Settings.model_fields):
        if "KEY" in name.upper():
            known = " and ".join(map(environment.variable, environment.KEYS))
            return (
                f"{name} is no setting, and without keys the service would be open to everybody; the settings are "
                f"{known}. If it is not meant for this service, unset it."
            )
    return None


def _no_checkpoint(settings: Settings) -> str | None:
    """Why a file that was named is no checkpoint at all, told before the seconds that it takes to import torch."""
    try:
        for text in settings.models:
            for path in checkpoint_of(ModelSource.parse(text)).paths:
                archive.check(path)
    except (InvalidModelSource, UnreadableCheckpoint) as error:
        return " ".join(str(error).split())
    return None


def _absent_libraries() -> str | None:
    """The first of those for gRPC that is not there."""
    for library in _GRPC_LIBRARIES:
        if find_spec(library) is None:
            return library
    return None


def _missing_temporary_folder() -> str | None:
    """Why torch and the workers, which keep files there, could not; a model would be blamed for it."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        return (
            f"{error.strerror}: they are missing, read-only or full. Mount one at /tmp (docker run --tmpfs /tmp, an "
            "emptyDir volume on Kubernetes), or name one that can be written to in TMPDIR."
        )
    wished = os.environ.get("TMPDIR")
    if wished and os.path.abspath(wished) != folder:
        logging.getLogger("dubio").warning("TMPDIR is %s, which cannot be written to; using %s.", wished, folder)
    return None


def parse(argv: Sequence[str]) -> Settings:
    """Read the settings of a command line and, where it is silent, of the environment.

    Args:
        argv: Arguments without the command's name.

    Raises:
        SettingsError: An argument is no option, or lacks its value.
        ValidationError: A value breaks the rule of its setting.
    """
    section: Any = None

    def add_option(parser: ArgumentParser, *names: str, **options: Any) -> None:
        # In sections, which pydantic-settings has for nested classes only.
        nonlocal section
        setting = options.get("dest", names[0])
        if setting in SECTIONS:
            section = parser.add_argument_group(SECTIONS[setting])
        if setting in _SECRETS:
            return
        if options.get("nargs") == "*" or options.get("action") == "append":
            options["metavar"] = "[NAME=]PATH" if setting == "models" else "TEXT"
        options["help"] = options["help"].removesuffix(" (default: null)").removesuffix(" (default: ())")
        (section or parser).add_argument(*names, **options)

    def keep_commas(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
        # Lists would be joined with commas, at which a path that holds one would be split.
        given = vars(parser.parse_args(arguments))
        return Namespace(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})

    source: CliSettingsSource[Any] = CliSettingsSource(
        Settings,
        cli_prog_name="dubio-serve",
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_implicit_flags="toggle",
        cli_kebab_case=True,
        cli_shortcuts={"cors-origins": "cors-origin", "allowed-hosts": "allowed-host"},
        add_argument_method=add_option,
        parse_args_method=keep_commas,
    )
    parser = source.root_parser
    parser.usage = "%(prog)s [[NAME=]PATH ...] [options]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    return CliApp.run(Settings, list(argv), cli_settings_source=source)
