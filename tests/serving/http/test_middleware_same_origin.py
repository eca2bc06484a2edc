"""What reaches a service on this machine, by raw sockets: headers as a browser sends them for a stranger's page."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dubio.serving.settings import Settings

PREDICT = json.dumps({"instances": [[1, 2, 3, 4, 5]]}).encode()
JSON = ("Content-Type: application/json",)
STRANGER = "Origin: http://evil.example"
CROSS = (STRANGER, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty")


class Service:
    """Asked by raw sockets."""

    def __init__(self, url: str) -> None:
        self.address = url.removeprefix("http://")

    def ask(self, method: str, path: str, *headers: str, host: str | None = None, body: bytes = b"") -> tuple[int, str]:
        """Status and body of the answer."""
        name, port = self.address.split(":")
        lines = [f"Host: {host or self.address}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        with socket.create_connection((name, int(port)), timeout=30) as raw:
            raw.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2].decode()

    def predict(self, *headers: str, host: str | None = None) -> int:
        return self.ask("POST", "/v1/models/row/predict", *headers, host=host, body=PREDICT)[0]

    def rows(self) -> int:
        """How many rows were predicted."""
        return round(
            sum(map(float, re.findall(r"^dubio_rows_total\{.*\} (.*)$", self.ask("GET", "/metrics")[1], re.M)))
        )


@pytest.fixture
def service(url: str) -> Service:
    return Service(url)


@pytest.fixture(scope="module")
def published(serve: Callable, numbers_checkpoint: Path) -> Iterator[Service]:
    """Behind a proxy, and open to the pages of one origin."""
    names = {"allowed_hosts": ("dubio.example.org",), "cors_origins": ("https://app.example.org",)}
    with serve(Settings(models=(str(numbers_checkpoint),), torch_threads=1, **names)) as url:
        yield Service(url)


def test_a_name_that_is_not_the_services_is_answered_with_421(service: Service) -> None:
    for path in ["/", "/v1/models", "/metrics", "/openapi.json", "/docs", "/v2", "/nothing"]:
        status, body = service.ask("GET", path, host="evil.example:8000")
        assert status == 421, path
        assert "evil.example:8000" in body
        assert "--allowed-host" in body
    before = service.rows()
    assert service.predict(*JSON, host="evil.example") == 421
    assert service.rows() == before
    twice = service.ask("GET", "/v1/models", "Host: evil.example")[0]
    assert twice in (400, 421)


@pytest.mark.parametrize("host", ["10.244.1.7:8000", "kubelet", "evil.example"])
def test_probes_may_name_it_as_they_like(service: Service, host: str) -> None:
    assert service.ask("GET", "/v2/health/ready", host=host)[0] == 200
    assert service.ask("HEAD", "/v2/health/live", host=host)[0] == 200


def test_it_is_asked_by_address_and_by_the_names_it_was_given(service: Service, published: Service) -> None:
    for host in ["127.0.0.1", "localhost:8000", "[::1]:8000", "10.244.1.7:8000"]:
        assert service.predict(*JSON, host=host) == 200
    assert service.predict(*JSON, host="dubio.example.org") == 421
    assert published.predict(*JSON, host="dubio.example.org") == 200


@pytest.mark.parametrize(
    "headers",
    [
        CROSS,
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty"),
        ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors", "Origin: http://127.0.0.1:3000"),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),  # a form
        ("Sec-Fetch-Site: unheard-of",),
        (STRANGER,),  # a browser that trusts no address without TLS says no more
        ("Origin: null",),
        ("Origin: http://localhost:1",),
    ],
)
def test_a_page_of_another_origin_does_not_predict(service: Service, headers: tuple[str, ...]) -> None:
    before = service.rows()
    for kind in [*JSON, "Content-Type: text/plain", "X-None: x"]:
        assert service.predict(*headers, kind) == 403
    assert service.ask("POST", "/v2/repository/models/row/unload", *headers)[0] == 403
    assert service.rows() == before


def test_it_does_not_read(service: Service) -> None:
    for path in ["/", "/v1/models", "/metrics", "/openapi.json", "/static/page.js"]:
        status, body = service.ask("GET", path, *CROSS)
        assert status == 403
        assert "--cors-origin" in body
    frame = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe")
    assert service.ask("GET", "/", *frame)[0] == 403


def test_it_is_not_told_that_it_may(service: Service) -> None:
    assert service.ask("OPTIONS", "/v1/predict", *CROSS, "Access-Control-Request-Method: POST")[0] == 403


def test_a_link_from_elsewhere_leads_here(service: Service) -> None:
    link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert service.ask("GET", "/docs", *link)[0] == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_its_own_page_does_all(service: Service, site: str) -> None:
    assert service.predict(*JSON, f"Sec-Fetch-Site: {site}", f"Origin: http://{service.address}") == 200
    assert service.predict(*JSON, f"Origin: http://{service.address}") == 200


def test_behind_a_proxy_too(published: Service) -> None:
    """One that ends TLS, and puts an address of its own in place of the name."""
    assert published.predict(*JSON, "Origin: https://dubio.example.org", host="dubio.example.org") == 200
    assert published.predict(*JSON, "Origin: https://dubio.example.org", host="127.0.0.1:8000") == 200
    assert published.predict(*JSON, "Origin: https://evil.example", host="dubio.example.org") == 403


def test_a_page_that_cors_names_does_all(published: Service) -> None:
    named = ("Origin: https://app.example.org", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors")
    assert published.predict(*JSON, *named) == 200
    assert published.ask("GET", "/v1/models", *named)[0] == 200
    assert published.predict(*JSON, *CROSS) == 403


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "TEXT/PLAIN;charset=UTF-8"],
)
def test_what_a_form_sends_is_no_request(service: Service, kind: str) -> None:
    before = service.rows()
    status, body = service.ask("POST", "/v1/models/row/predict", f"Content-Type: {kind}", body=PREDICT)
    assert status == 415
    assert "Content-Type: application/json" in json.loads(body)["detail"]
    assert service.rows() == before


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json", ""])
def test_json_is_however_it_is_called(service: Service, kind: str) -> None:
    assert service.predict(f"Content-Type: {kind}") == 200


def test_programs_that_are_no_browsers_need_nothing(service: Service, url: str) -> None:
    assert service.predict() == 200
    assert httpx.post(f"{url}/v1/models/row/predict", content=PREDICT).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "://", "http://", "null", "http://a@b:c@d"])
def test_an_origin_that_is_no_address_is_foreign(service: Service, origin: str) -> None:
    assert service.predict(f"Origin: {origin}", "Content-Type: application/json") == 403
