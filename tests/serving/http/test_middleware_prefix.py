"""The service behind a reverse proxy that publishes it under a path of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

PREFIX = "/dubio"
KEY = "some-secret-0123456789"


@contextmanager
def published(service: str, *, strips: bool) -> Iterator[str]:
    """Publish a service below `PREFIX`, as `location /dubio/` does, with or without removing it; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if not self.path.startswith(PREFIX):
                self.send_error(404)
                return
            path = (self.path.removeprefix(PREFIX) or "/") if strips else self.path
            connection = HTTPConnection(urlsplit(service).netloc, timeout=30)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection.request(self.command, path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("server", "date", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_HEAD = do_POST = forward

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def services(serve: Callable, numbers_checkpoint: Path) -> Iterator[dict[str | None, str]]:
    """Two services, one that was told of the prefix, and one that was not; by what they were told."""
    from dubio.serving.settings import Settings

    with ExitStack() as stack:
        yield {
            told: stack.enter_context(
                serve(Settings(models=(str(numbers_checkpoint),), torch_threads=1, root_path=told))
            )
            for told in (None, PREFIX)
        }


@pytest.fixture(params=[(True, None), (True, PREFIX), (False, PREFIX)], ids=["strips", "strips, told", "told"])
def page(request: pytest.FixtureRequest, services: dict[str | None, str]) -> Iterator[str]:
    """Address of the page, as a browser knows it."""
    strips, told = request.param
    with published(services[told], strips=strips) as url:
        yield url


@pytest.mark.parametrize("name", ["", "docs", "redoc"])
def test_all_that_a_page_names_loads(page: str, name: str) -> None:
    url = urljoin(page, name)
    document = httpx.get(url)
    assert document.headers["content-type"].startswith("text/html")
    named = re.findall(r"(?:src|href|spec-url|url)\s*[=:]\s*[\"']([^\"']+)", document.text)
    assert len(named) > 2
    for address in named:
        if address != "data:,":
            answer = httpx.get(urljoin(url, address))
            assert (address, answer.status_code) == (address, 200)


def test_what_the_script_asks_for_is_there(page: str) -> None:
    script = httpx.get(urljoin(page, "static/service.js")).text
    asked = [f"v1/models/row{rest}" for rest in re.findall(r"ask\(model\(name(?:, \"([^\"]+)\")?\)", script)]
    asked += [re.sub(r"\?.*", "", each) for each in re.findall(r"ask\(\s*[\"`](v1/[^\"`]+)", script)]
    assert len(asked) == 11
    # What is only posted; without a shadow there is no comparison, and without a store there are no reviews.
    other = {"/predict": 405, "/promote": 405, "/comparison": 404, "/reviews": 409, "/${id}": 409, "/export": 409}
    for address in asked:
        answer = httpx.get(urljoin(page, address.replace("${id}", "0" * 32)))
        expected = next((status for end, status in other.items() if address.endswith(end)), 200)
        assert (address, answer.status_code) == (address, expected)


def test_what_the_description_describes_is_where_it_says(page: str) -> None:
    url = urljoin(page, "openapi.json")
    document = httpx.get(url).json()
    [server] = document["servers"]
    base = urljoin(url, server["url"]).rstrip("/")
    assert base == page.rstrip("/")
    for path, operations in document["paths"].items():
        if path.endswith("/comparison"):  # there is no shadow
            continue
        if "409" not in operations.get("get", {"responses": ["409"]})["responses"]:  # as without a store
            assert httpx.get(base + path.format(name="row", version="1")).status_code == 200, path
    [example] = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ].values()
    answer = httpx.post(f"{base}/v1/predict", json=example["value"])
    assert answer.json()["model"] == {"name": "row", "version": "1"}


def test_without_its_slash_the_prefix_leads_to_the_page(services: dict[str | None, str]) -> None:
    with published(services[PREFIX], strips=False) as page:
        for method in ("GET", "HEAD"):
            answer = httpx.request(method, page.rstrip("/"))
            assert (answer.status_code, answer.headers["location"]) == (307, f"{PREFIX}/")


def test_what_only_begins_like_the_prefix_is_not_below_it(services: dict[str | None, str]) -> None:
    for path in ("/dubious/v1/models", "/dubio/dubio/v1/models", "/dubiov1/models"):
        assert httpx.get(services[PREFIX] + path).status_code == 404
    assert httpx.get(f"{services[PREFIX]}/v1/models").status_code == 200  # a probe comes without the proxy
    assert httpx.get(f"{services[None]}/dubio/v1/models").status_code == 404


def test_nothing_below_the_prefix_needs_less_of_a_key(
    services: dict[str | None, str], serve: Callable, settings: Callable, numbers_checkpoint: Path
) -> None:
    repository = f"{PREFIX}/v2/repository/models/row/unload"
    answer = httpx.post(services[PREFIX] + repository)
    assert (answer.status_code, "Administration is off" in answer.json()["error"]) == (403, True)
    given = settings(models=(str(numbers_checkpoint),), root_path=PREFIX, api_keys=f"infer:{KEY}")
    with serve(given) as url, httpx.Client(base_url=url) as client:
        key = {"X-API-Key": KEY}
        assert client.get(f"{PREFIX}/v2/health/ready").status_code == 200
        assert client.get(f"{PREFIX}/v1/models").status_code == 401
        assert client.get(f"{PREFIX}/v1/models", headers=key).status_code == 200
        assert client.get(f"{PREFIX}/metrics", headers=key).status_code == 403
        assert client.post(repository, headers=key).status_code == 403
        assert client.post(f"{PREFIX}/nowhere").status_code == 401
