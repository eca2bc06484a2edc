"""The server of the calls: grpcio's, on the running event loop, with bounds on what it takes from a connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from dubio.serving.errors import AddressRefused
from dubio.serving.rpc.calls import Calls
from dubio.serving.settings import Settings

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


@dataclass
class RpcServer:
    """Answers over gRPC what others answer over HTTP.

    Attributes:
        handlers: Of the services.
        calls: Around them.
        settings: The operator's limits.
    """

    handlers: Sequence[grpc.GenericRpcHandler]
    calls: Calls
    settings: Settings

    async def start(self, address: str) -> None:
        """Listen, beside other processes that listen there.

        Args:
            address: Host and port.

        Raises:
            AddressRefused: It cannot be listened on.
        """
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

    async def stop(self, seconds: float) -> None:
        """Refuse new calls at once, and finish the others, within so many seconds."""
        await self._server.stop(seconds)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
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
