from __future__ import annotations

import socket

import pytest

from dubio.serving.http.allowed_hosts import AllowedHosts


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:8000", "localhost.", "dubio.localhost:1", "localhost:"),
        *("127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "10.244.1.7:8000", "[2001:db8::7]:80", "0.0.0.0"),
        *("dubio.example.org", "dubio.example.org:443", "a.apps.example.org", "a.b.apps.example.org", "bound.lan:8000"),
    ],
)
def test_these_are_the_service(host: str) -> None:
    assert AllowedHosts(["Dubio.example.org", "*.apps.example.org"], "bound.lan").allow(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost"),
        *(
            "apps.example.org",
            ".apps.example.org",
            "xapps.example.org",
            "dubio.example.org.evil.example",
            "example.org",
        ),
        *("127.1", "2130706433", "0x7f000001", "[::1", "::1", "[localhost]", "localhost:8000:1", "localhost:x", "a b"),
        *("user@localhost", "localhost/evil", "localhost,evil.example", "[::1].evil.example", "127.0.0.1@evil.example"),
    ],
)
def test_these_are_not(host: str) -> None:
    assert not AllowedHosts(["dubio.example.org", "*.apps.example.org"], "127.0.0.1").allow(host)


def test_a_star_stands_for_all() -> None:
    assert AllowedHosts(["*"], "127.0.0.1").allow("evil.example")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_where_all_addresses_are_bound_the_name_of_the_machine_is_the_services(bound: str) -> None:
    assert AllowedHosts([], bound).allow(f"{socket.gethostname()}:8000")


def test_only_names_that_were_given_are_those_of_a_proxy() -> None:
    hosts = AllowedHosts(["dubio.example.org", "*"], "bound.lan")
    assert hosts.is_named("dubio.example.org:8443")
    assert not any(map(hosts.is_named, ["bound.lan", "localhost", "127.0.0.1", "evil.example", ""]))
