"""The server of the calls: grpcio's, on the running event loop, with bounds on what it takes from a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import grpc

from dubio.serving.errors import AddressRefused
from dubio.serving.rpc.calls import Calls
from dubio.serving.settings import Settings

_log = logging.getLogger("dubio")

_MILLISECONDS = 1000
# Of a connection from which nothing comes: when it is asked for a sign of life, and how long one may take.
_PING_SECONDS = 60
_PONG_SECONDS = 20
# A client that pings more often than this is told to stop, and then cut off.
_PING_INTERVAL_SECONDS = 10
_PING_STRIKES = 2
# Calls that the event loop has not taken up yet, of which there is little more than a head. Beyond it grpcio cancels
# some, whoever they are from; beyond the double, all.
_MOST_PENDING = 10_000
_LARGEST = 2**31 - 1  # that an option takes


@dataclass
class RpcServer:
    """Answers over gRPC what others answer over HTTP.

    Attributes:
        handlers: Of the services.
        calls: Around them.
        settings: The operator's limits.
        failed: Whether it ended for good although nobody stopped it.
    """

    handlers: Sequence[grpc.GenericRpcHandler]
    calls: Calls
    settings: Settings

    def __post_init__(self) -> None:
        self._stopping = self.failed = False

    async def start(self, address: str) -> None:
        """Listen, beside other processes that listen there.

        Args:
            address: Host and port.

        Raises:
            AddressRefused: It cannot be listened on.
        """
        await self._listen(address)
        self._watch = asyncio.create_task(self._listen_again(address))

    async def _listen(self, address: str) -> None:
        self._server = grpc.aio.server(
            options=_options(self.settings),
            # Those beyond the calls' own limit are told what it is, up to here.
            maximum_concurrent_rpcs=2 * self.settings.grpc_max_calls,
        )
        self._server.add_generic_rpc_handlers(tuple(self.handlers))
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressRefused(
                f"Cannot listen on {address} for gRPC: {error}; choose another --grpc-port."
            ) from error
        await self._server.start()

    async def _listen_again(self, address: str) -> None:
        """Listen again whenever grpcio's server ends by itself, as it does at a path that is no UTF-8."""
        while True:
            with suppress(Exception):  # what its loop met
                await self._server.wait_for_termination()
            if self._stopping:
                return
            _log.error("gRPC's server ended by itself, with all calls; another one takes its place.")
            try:
                await self._listen(address)
            except AddressRefused as error:
                _log.error("%s", error)
                self.failed = True
                return

    async def stop(self, seconds: float) -> None:
        """Refuse new calls at once, and finish the others, within so many seconds."""
        self._stopping = True
        await self._server.stop(seconds)


def _options(settings: Settings) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_head_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_head_bytes),
        ("grpc.max_concurrent_streams", settings.grpc_max_calls),
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MOST_PENDING),
        ("grpc.server_handshake_timeout_ms", round(settings.head_seconds * _MILLISECONDS)),
        ("grpc.max_connection_idle_ms", settings.keep_alive_seconds * _MILLISECONDS),
        ("grpc.keepalive_time_ms", _PING_SECONDS * _MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PONG_SECONDS * _MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_SECONDS * _MILLISECONDS),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]
    return [(name, min(value, _LARGEST)) for name, value in options]
