"""Who the client is, where a reverse proxy is in front, and where somebody only says so."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from dubio.serving.server import sockets


def clients(command: Any, checkpoint: Path, *options: str, **environment: str) -> list[str]:
    """Clients by the access log, when requests come from this machine with an ever stranger X-Forwarded-For."""
    with command.started(str(checkpoint), "--access-log", *options, **environment) as service:
        for value in ["203.0.113.9", "198.51.100.7, 203.0.113.9, 127.0.0.1", "x" * 5000, '"\r\t{}']:
            httpx.get(f"{service.url}/v2/health/live", headers={"X-Forwarded-For": value.replace("\r", "")})
        assert service.finish(2) == 0
        return [json.loads(line)["client"] for line in service.output.splitlines()]


def test_nobody_says_who_the_client_is(command: Any, numbers_checkpoint: Path) -> None:
    # The variable is uvicorn's own, and set where images were made for other servers.
    assert clients(command, numbers_checkpoint, FORWARDED_ALLOW_IPS="*") == ["127.0.0.1"] * 4


def test_a_trusted_proxy_does_in_bounds(command: Any, numbers_checkpoint: Path) -> None:
    told = clients(command, numbers_checkpoint, "--trusted-proxies", "127.0.0.0/8", "--trusted-proxies", "::1")
    assert told == ["203.0.113.9", "203.0.113.9", "x" * 64, '"\t{}']


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the system has no sockets for both versions of IP")
def test_a_network_is_known_on_a_socket_for_both_versions() -> None:
    with sockets.bind("::", 0) as bound:
        bound.listen()
        with socket.create_connection(("127.0.0.1", bound.getsockname()[1])), bound.accept()[0] as accepted:
            peer = ipaddress.ip_address(accepted.getpeername()[0])
    assert any(peer in ipaddress.ip_network(network) for network in sockets.as_peers(["127.0.0.0/8"]))
    assert not any(peer in ipaddress.ip_network(network) for network in sockets.as_peers(["10.0.0.0/8", "::1"]))
