"""`dubio-serve`: from a command line to a running service, or to one line that says why not."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

from pydantic import ValidationError

from serving.settings import Settings

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

then:
  curl http://127.0.0.1:8000/v1/models                  what is loaded
  open http://127.0.0.1:8000/                           a page to try it
  open http://127.0.0.1:8000/docs                       every route, with requests that run

Every option, and more, can be set in the environment: DUBIO_PORT=9000, DUBIO_MODELS=a=x.ckpt,b=y.ckpt,
DUBIO_MAX_ROWS, DUBIO_MAX_BODY_BYTES, DUBIO_PREDICTION_THREADS, DUBIO_TORCH_THREADS, DUBIO_GRACE_SECONDS,
DUBIO_ACCESS_LOG=1. The command line wins.

exit codes: 0 stopped by SIGTERM or Ctrl-C; 1 the system refused (port in use); 2 a wrong argument, setting
or checkpoint.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop; returns the exit code."""
    given = vars(_parser().parse_args(argv))
    try:
        settings = Settings(**{name: value for name, value in given.items() if value not in (None, [])})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return _fail(f"setting {field}: {first['msg']}, but got {first['input']!r}.", _WRONG_REQUEST)
    if not settings.models:
        return _fail("name at least one checkpoint, for example runs/digits_mlp/model.ckpt.", _WRONG_REQUEST)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        # Before the models load: nobody wants to wait for them to learn that the port is taken.
        bound = _bind(settings.host, settings.port)
    except OSError as error:
        return _fail(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "choose another --port or --host.",
            _REFUSED_BY_SYSTEM,
        )
    with bound:
        return _serve(settings, bound)


def _serve(settings: Settings, bound: socket.socket) -> int:
    # torch takes seconds to import, and `--help` or a port in use need none of it.
    from models.errors import ModelError
    from serving.errors import ServingError
    from uncertainty.errors import UncertaintyError

    try:
        asyncio.run(_run(settings, bound))
    except (ModelError, UncertaintyError, ServingError) as error:
        return _fail(" ".join(str(error).split()), _WRONG_REQUEST)
    except KeyboardInterrupt:
        pass  # while the models were loading; afterwards uvicorn takes the signal
    return 0


async def _run(settings: Settings, bound: socket.socket) -> None:
    import uvicorn

    from serving.app import create_app
    from serving.repository import ModelSource

    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            # Entered below instead: uvicorn would log a trace where one line is due.
            lifespan="off",
            log_config=None,
            access_log=settings.access_log,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.grace_seconds,
            server_header=False,
        )
    )
    async with app.router.lifespan_context(app):
        # uvicorn raises the signal that stopped it once more when it is done; it was obeyed, so all is well.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _obeyed)
        host, port = bound.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logging.getLogger("dubio").info(
            "Serving %s on %s", ", ".join(ModelSource.parse(text).name for text in settings.models), url
        )
        await server.serve(sockets=[bound])


def _obeyed(number: int, frame: FrameType | None) -> None:
    """Nothing is left to do."""


def _bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address but refuses connections until the server listens, ready to answer.

    Raises:
        OSError: the address is taken, unknown or forbidden.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _fail(message: str, code: int) -> int:
    print(f"dubio-serve: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    fields = Settings.model_fields
    parser = argparse.ArgumentParser(
        prog="dubio-serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", nargs="*", metavar="[NAME=]CHECKPOINT", help="a checkpoint and the name to serve it under"
    )
    parser.add_argument("--host", help=f"address to listen on (default: {fields['host'].default}, this machine only)")
    parser.add_argument(
        "--port", type=int, help=f"port to listen on, 0 for any free one (default: {fields['port'].default})"
    )
    parser.add_argument("--device", help=f"cpu, cuda or cuda:1 (default: {fields['device'].default})")
    parser.add_argument(
        "--trusted",
        action="append",
        metavar="PREFIX",
        help="module prefix of networks of your own; a checkpoint may then run code from there (repeatable)",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info")
    return parser
