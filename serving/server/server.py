"""One process that serves: the only one, or one of several workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvicorn

from dubio.models.errors import ModelError
from dubio.serving.app import create_app
from dubio.serving.compute.process import ComputeProcess
from dubio.serving.errors import ServingError
from dubio.serving.lifecycle import Lifecycle, end
from dubio.serving.server.acceptor import Acceptor, ConnectionCounts
from dubio.serving.server.protocol import BoundedProtocol, Limits
from dubio.serving.server.sockets import accept_waiting, address, as_peers, stop_connecting
from dubio.serving.settings import Settings
from dubio.serving.telemetry.gauges import IN_FLIGHT
from dubio.uncertainty.errors import UncertaintyError

if TYPE_CHECKING:  # which brings grpcio along, and most services do without
    from dubio.serving.rpc.server import RpcServer

_log = logging.getLogger("dubio")

# Of the grace period, for putting things away once the last request is answered or cut off.
_TIDYING_SECONDS = 1
_NEXT_ROUND_SECONDS = 0.01
# A prediction wants the interpreter for microseconds, between two operations of torch. With Python's own 5 ms it would
# wait that long for each while the event loop writes the answers of the batch before.
_SWITCH_SECONDS = 0.001


class _Server(uvicorn.Server):
    """uvicorn, but it says when it listens and ticks, and leaves signals to us, who are not ready first of all."""

    def __init__(
        self,
        config: uvicorn.Config,
        bound: socket.socket,
        counts: ConnectionCounts | None,
        rpc: RpcServer | None,
        rpc_address: str,
    ) -> None:
        """Serve on `bound`.

        Args:
            config: For uvicorn.
            bound: Socket to listen on.
            counts: Connections of all workers on it; None for the only process.
            rpc: Listens for gRPC beside it; None if nothing does.
            rpc_address: Where.
        """
        super().__init__(config)
        self._bound = bound
        self._counts = counts
        self._rpc, self._rpc_address = rpc, rpc_address
        self._acceptor: Acceptor | None = None
        self.listening: Callable[[], None] = lambda: None
        self.ticked: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and then call `listening`."""
        if self._rpc is not None:
            await self._rpc.start(self._rpc_address)
        await super().startup([self._bound] if self._counts is None else [])
        if self._counts is not None:
            self._acceptor = Acceptor(self._bound, self._make_protocol, self._counts, self._count)
        self.listening()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: other workers see how this one stands; connections that ended count no more."""
        if self._counts is not None:
            self._counts.show(self._count())
        self.ticked()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections and finish the others, those included that wait to be accepted."""
        if self._rpc is not None:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._rpc.stop(self.config.timeout_graceful_shutdown or 0))
                both.create_task(self._shut_down())
        else:
            await self._shut_down()

    async def _shut_down(self) -> None:
        if self._acceptor is not None:
            await self._acceptor.close()
        else:
            waiting = accept_waiting(self._bound)
            for server in self.servers:
                server.close()
            for connection in waiting:
                await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, connection)
        # What was accepted last becomes a connection in the loop's next round; uvicorn closes those it knows.
        await asyncio.sleep(_NEXT_ROUND_SECONDS)
        await super().shutdown()

    def _count(self) -> int:
        return len(self.server_state.connections)

    def _make_protocol(self) -> asyncio.Protocol:
        """Make one as uvicorn does for a socket of its own."""
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def run(
    settings: Settings,
    bound: socket.socket,
    lifecycle: Lifecycle,
    *,
    started: Callable[[list[str]], None],
    folder: Path | None = None,
    worker: int = 0,
    process: ComputeProcess | None = None,
) -> str | None:
    """Load the models, serve until `lifecycle` is told to stop, and finish what had begun.

    Args:
        settings: What to serve, and how.
        bound: Socket to listen on.
        lifecycle: That of this process.
        started: Called with the names of the models once they answer.
        folder: Folder that the workers share; None for the only process.
        worker: Its number among them.
        process: That computes; None for this one.

    Returns:
        In one line, which model or setting cannot be used; None after the end.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        application = create_app(settings, lifecycle, metrics_folder=folder, worker=worker, process=process)
        protocol = partial(
            BoundedProtocol,
            limits=Limits(settings.max_head_bytes, settings.head_seconds),
            refused=application.metrics.count_refused,
        )
        config = uvicorn.Config(
            application.asgi,
            http=cast(type[asyncio.Protocol], protocol),  # it is only ever called
            ws="none",
            # Entered below instead: uvicorn would log a trace where one line is due.
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=max(0, int(settings.grace_seconds - settings.drain_seconds) - _TIDYING_SECONDS),
            server_header=False,
            # Said in full: uvicorn would believe this machine, or whom a variable of its own names.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=as_peers(settings.trusted_proxies),
        )

        def listening() -> None:
            lifecycle.serving(close, reload, drain=settings.drain_seconds, grace=settings.grace_seconds)
            started([model.name for model in application.repository])

        def close() -> None:
            if lifecycle.everyone:
                stop_connecting(bound)
            server.should_exit = True

        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = asyncio.get_running_loop().create_task(application.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        counts = None if folder is None else ConnectionCounts(folder, settings.workers, worker)
        rpc, host = application.rpc, bound.getsockname()[0]
        server = _Server(config, bound, counts, rpc, address(host, settings.grpc_port or 0))
        server.listening = listening
        gauges = application.metrics.gauges

        def in_flight() -> int:
            return len(server.server_state.tasks) + (0 if rpc is None else rpc.calls.in_flight)

        gauges.register(IN_FLIGHT, in_flight)

        def ticked() -> None:
            if folder is not None:
                gauges.update()
            service = application.service
            if rpc is not None and rpc.failed and not lifecycle.stopping:
                _log.error("Nothing listens for gRPC any more, so this process ends.")
                lifecycle.stop(everyone=folder is None)
            # One process alone is left to its probe while it may recover. Among several, a probe would ask any of them.
            if lifecycle.stopping or not (service.executor.lost or (folder is not None and service.beyond_help)):
                return
            ends = "this process ends" if folder is None else "this worker ends; another one takes its place"
            _log.error("%s, so %s.", service.beyond_help, ends)
            lifecycle.stop(everyone=folder is None)

        server.ticked = ticked

        async def serve() -> None:
            async with application.lifespan():
                await server.serve()

        with contextlib.closing(bound), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())
        if application.service.executor.lost or (rpc is not None and rpc.failed):
            end(1)  # so that what started this process starts another one
    except (ModelError, UncertaintyError, ServingError) as error:
        return " ".join(str(error).split())
    return None
