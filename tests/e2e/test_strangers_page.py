"""A stranger's page, in a real browser on the machine of the service: it tries to predict, to read and to unload."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; Debian's package `chromium` brings one"),
]

SECONDS = 60
STAY = "--remote-debugging-port=0"
PAGE = """<!doctype html><title>kittens</title><iframe name="hidden"></iframe><script>
const service = "SERVICE", body = '{"instances": [[1, 2, 3, 4, 5]]}', said = {};
const ask = async (name, path, options) => {
  try {
    const answer = await fetch(service + path, options);
    said[name] = answer.type === "opaque" ? "sent" : answer.status + " " + await answer.text();
  } catch (error) { said[name] = "no answer"; }
};
const form = (path, type) => {
  const form = Object.assign(document.createElement("form"), {
    action: service + path, method: "post", enctype: type, target: "hidden"});
  const name = '{"instances": [[1, 2, 3, 4, 5]], "id": "';
  form.append(Object.assign(document.createElement("input"), {name, value: '"}'}));
  document.body.append(form);
  form.submit();
};
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));
addEventListener("load", async () => {
  const plain = {method: "post", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body};
  await ask("predict", "/v1/predict", plain);
  await ask("predict without a type", "/v1/predict", {...plain, headers: {}, body: new Blob([body])});
  await ask("predict as asked", "/v1/predict", {method: "post", headers: {"Content-Type": "application/json"}, body});
  await ask("read", "/v1/models");
  await ask("read unasked", "/v1/models", {mode: "no-cors"});
  await ask("unload", "/v2/repository/models/row/unload", {...plain, body: "{}"});
  form("/v1/predict", "text/plain");
  await wait(500);
  await fetch("/said", {method: "post", body: JSON.stringify(said)});
});
</script>"""


@contextmanager
def stranger(service: str, said: queue.Queue[dict[str, str]]) -> Iterator[int]:
    """A web server with the page, which tells it what it got; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(PAGE.replace("SERVICE", service).encode())

        def do_POST(self) -> None:
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browser(folder: Path, url: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Chromium at `url`; `evil.example` is this machine, as a stranger's DNS says it is."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [f"--user-data-dir={folder}", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    assert CHROMIUM is not None
    with subprocess.Popen(
        [CHROMIUM, *options, *more, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def rows(url: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("dubio_rows_total"))


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"], ids=["localhost", "a name that leads there"])
def test_a_strangers_page_gets_nothing(numbers_checkpoint: Path, tmp_path: Path, host: str) -> None:
    with Command().started(str(numbers_checkpoint)) as service:
        port = service.url.rsplit(":", 1)[1]
        said: queue.Queue[dict[str, str]] = queue.Queue()
        with stranger(f"http://{host}:{port}", said) as at, browser(tmp_path, f"http://evil.example:{at}/", STAY):
            got = said.get(timeout=SECONDS)
        assert got["predict"] == got["predict without a type"] == "sent"  # it cannot see what became of it
        assert {got[name] for name in ("predict as asked", "read")} == {"no answer"}
        assert rows(service.url) == 0
        assert httpx.get(f"{service.url}/v2/models/row/ready").status_code == 200
        metrics = httpx.get(f"{service.url}/metrics").text
        reason = "cross_origin_request" if host == "127.0.0.1" else "misdirected_request"
        assert f'reason="{reason}"' in metrics


def test_a_page_whose_name_was_pointed_here_reads_nothing(numbers_checkpoint: Path, tmp_path: Path) -> None:
    """To the browser it is the service's own page: only the Host tells."""
    with Command().started(str(numbers_checkpoint)) as service:
        port = service.url.rsplit(":", 1)[1]
        with browser(tmp_path, f"http://evil.example:{port}/v1/models", "--dump-dom") as process:
            assert process.stdout is not None
            page = process.stdout.read()
        assert "Misdirected request" in page
        assert "committee" not in page


@pytest.mark.parametrize("path", ["docs", "redoc"])
def test_the_pages_of_the_api_are_drawn_by_the_scripts_they_may_run(
    numbers_checkpoint: Path, tmp_path: Path, path: str
) -> None:
    with Command().started(str(numbers_checkpoint)) as service:
        with browser(tmp_path, f"{service.url}/{path}", "--dump-dom", "--virtual-time-budget=10000") as process:
            assert process.stdout is not None
            drawn = process.stdout.read()
        assert "Predict with the default model" in drawn
