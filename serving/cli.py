"""`dubio-serve`: from a command line to a running service, or to one line that says why not."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pydantic import ValidationError

from dubio.serving.lifecycle import Lifecycle, end
from dubio.serving.server import sockets
from dubio.serving.server.supervisor import Supervisor
from dubio.serving.settings import Settings, unknown
from dubio.serving.telemetry.log import configure_log

_REFUSED_BY_SYSTEM = 1
_WRONG_REQUEST = 2

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
  dubio-serve --model-repository models --model-control poll
      serves models/<name>/<version>/model.ckpt, and takes up what is put there later

then:
  curl http://127.0.0.1:8000/v1/models                  what is loaded
  open http://127.0.0.1:8000/                           a page to try it
  open http://127.0.0.1:8000/docs                       every route, with requests that run

Every option, and more, can be set in the environment: DUBIO_PORT=9000, DUBIO_MODELS=a=x.ckpt,b=y.ckpt,
DUBIO_API_KEYS, DUBIO_MAX_ROWS, DUBIO_MAX_BODY_BYTES, DUBIO_PREDICTION_THREADS, DUBIO_TORCH_THREADS,
DUBIO_GRACE_SECONDS, DUBIO_DRAIN_SECONDS. The command line wins. docs/operations.md describes them all.

signals: SIGTERM or Ctrl-C lets requests in flight finish; a second one ends the service at once.

exit codes: 0 stopped by SIGTERM or Ctrl-C; 1 the system refused (port in use), or requests in flight did not
finish in time; 2 a wrong argument, setting or checkpoint; 130 or 143 ended by a second signal.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop, which ends the process; else returns the exit code."""
    given = vars(_parser().parse_args(argv))
    try:
        settings = Settings(**{name: value for name, value in given.items() if value not in (None, [])})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        # What was given for a secret setting is not repeated.
        got = "" if "key" in field else f", but got {first['input']!r}"
        return _fail(f"setting {field}: {first['msg']}{got}.", _WRONG_REQUEST)
    if not settings.models and settings.model_repository is None:
        return _fail(
            "name at least one checkpoint, for example runs/digits_mlp/model.ckpt, or a --model-repository.",
            _WRONG_REQUEST,
        )
    if settings.trusted:
        sys.path.append(os.getcwd())  # where the operator's own modules are; last, so that they hide nobody else's
    configure_log(settings.log_level)
    for line in unknown(os.environ):
        logging.getLogger("dubio").warning(line)
    try:
        # Before the models load: nobody wants to wait for them to learn that the port is taken.
        bound = sockets.bind(settings.host, settings.port)
    except OSError as error:
        return _fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "choose another --port or --host.",
            _REFUSED_BY_SYSTEM,
        )
    url = sockets.url(bound)

    def started(models: list[str]) -> None:
        logging.getLogger("dubio").info("Serving %s on %s", ", ".join(models) or "no model yet", url)

    with bound:
        if settings.workers > 1:
            code, message = Supervisor(settings, bound, started=started).run()
            return code if message is None else _fail(message, code)
        return _serve_alone(settings, bound, started)


def _serve_alone(settings: Settings, bound: socket.socket, started: Callable[[list[str]], None]) -> int:
    lifecycle = Lifecycle()
    lifecycle.obey_signals()

    # torch takes seconds to import, and `--help` or a port in use need none of it.
    from dubio.models.errors import ModelError
    from dubio.serving.errors import ServingError
    from dubio.serving.server import server
    from dubio.uncertainty.errors import UncertaintyError

    try:
        server.run(settings, bound, lifecycle, started=started)
    except (ModelError, UncertaintyError, ServingError) as error:
        return _fail(" ".join(str(error).split()), _WRONG_REQUEST)
    end(0)


def _fail(message: str, code: int) -> int:
    print(f"dubio-serve: {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; all that could be given instead is a page long, and `--help` shows it."""

    def error(self, message: str) -> NoReturn:
        self.exit(_WRONG_REQUEST, f"dubio-serve: {message}; dubio-serve --help lists what there is.\n")


def _parser() -> argparse.ArgumentParser:
    fields = Settings.model_fields
    parser = _Parser(
        prog="dubio-serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="[NAME=]CHECKPOINT",
        help="a checkpoint and the name to serve it under; NAME=first.ckpt+second.ckpt is an ensemble",
    )
    parser.add_argument(
        "--model-repository", metavar="DIR", help="directory of more models: <name>/<version>/model.ckpt"
    )
    parser.add_argument(
        "--model-control",
        choices=("none", "poll", "explicit"),
        help="load all models once (none, the default), follow changes on disk (poll), or load from the directory what "
        "an administrator requests (explicit)",
    )
    parser.add_argument("--host", help=f"address to listen on (default: {fields['host'].default}, this machine only)")
    parser.add_argument(
        "--port", type=int, help=f"port to listen on, 0 for any free one (default: {fields['port'].default})"
    )
    parser.add_argument("--device", help=f"cpu, cuda or cuda:1 (default: {fields['device'].default})")
    parser.add_argument(
        "--strategy",
        choices=("chain", "thinned", "traced", "vmap", "fold", "loop"),
        help="how members are run, for batches of every size (default: measured when a model loads)",
    )
    parser.add_argument(
        "--trusted",
        action="append",
        metavar="PREFIX",
        help="module prefix of networks of your own; a checkpoint may then run code from there (repeatable)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that share the port, each with all models (default: 1)"
    )
    parser.add_argument(
        "--api-keys-file",
        metavar="FILE",
        help="API keys, one scope[,scope]:key a line; scopes are infer, admin and metrics",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        dest="cors_origins",
        metavar="ORIGIN",
        help="a web origin whose pages may call the service, such as https://app.example.org (repeatable)",
    )
    parser.add_argument(
        "--access-log", action="store_true", default=None, help="a line of JSON for every request, on standard output"
    )
    parser.add_argument(
        "--tracing", action="store_true", default=None, help="send OpenTelemetry traces, as OTEL_* variables say"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info")
    return parser
