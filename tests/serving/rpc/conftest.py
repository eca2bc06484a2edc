"""Servers that answer over both HTTP and gRPC, on free ports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from dubio.serving.app import create_app
from dubio.serving.server import sockets
from dubio.serving.settings import Settings
from tests.serving.rpc.client import Client, Served


@contextmanager
def _serve(settings: Settings) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    stop, started = asyncio.Event(), threading.Event()
    failed: list[BaseException] = []
    with sockets.bind("127.0.0.1", 0) as bound, sockets.hold("127.0.0.1", 0) as held:
        application = create_app(settings.model_copy(update={"grpc_port": held.getsockname()[1]}))
        address = sockets.address(*held.getsockname())

        async def main() -> None:
            server = uvicorn.Server(uvicorn.Config(application.asgi, lifespan="off", log_config=None))
            async with application.lifespan():
                assert application.rpc is not None
                await application.rpc.start(address)
                serving = asyncio.create_task(server.serve([bound]))
                while not server.started:
                    await asyncio.sleep(0.01)
                started.set()
                await stop.wait()
                server.should_exit = True
                await application.rpc.stop(5)
                await serving

        def run() -> None:
            try:
                loop.run_until_complete(main())
            except BaseException as error:  # told by whoever waits
                failed.append(error)
            finally:
                started.set()

        thread = threading.Thread(target=run)
        thread.start()
        started.wait()
        try:
            assert not failed, failed
            yield Served(sockets.url(bound), address, application)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


@pytest.fixture(scope="session")
def serve_rpc() -> Callable[[Settings], AbstractContextManager[Served]]:
    """Serves settings for as long as the context lasts."""
    return _serve


@pytest.fixture(scope="session")
def served(
    checkpoint: Path, numbers_checkpoint: Path, table_checkpoint: Path, text_checkpoint: Path, pixels_checkpoint: Path
) -> Iterator[Served]:
    """A service with a model of each kind of input, and the calibrated `bars`."""
    models = tuple(map(str, (checkpoint, numbers_checkpoint, table_checkpoint, text_checkpoint, pixels_checkpoint)))
    with _serve(Settings(models=models, max_rows=64, max_body_bytes=256 * 1024, torch_threads=1)) as served:
        yield served


@pytest.fixture
def rpc(served: Served) -> Iterator[Client]:
    """A client of that service."""
    with Client(served.address) as client:
        yield client


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    """A client of that service over HTTP."""
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client
