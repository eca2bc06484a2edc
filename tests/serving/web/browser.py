"""A real browser, headless, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; Debian's package `chromium` brings one")
SECONDS = 30.0
_KEYS = {"Enter": 13, "Tab": 9, " ": 32, "Backspace": 8, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
_KEYS |= {"ArrowDown": 40, "End": 35, "Home": 36, "-": 189}
_TEXTS = {"Enter": "\r", " ": " "}
CONTROL = 2


class ProtocolError(Exception):
    """The browser refused a call, for instance because another page is being loaded."""


class Page:
    """One tab.

    Attributes:
        complaints: What the browser complained of since the last visit: exceptions, and what the policy forbade.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; gives what it answers."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            self._note(message)
            if message.get("id") == number:
                if "error" in message:
                    raise ProtocolError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["source"] in ("security", "javascript"):
            self.complaints.append(params["entry"]["text"])

    def visit(self, url: str) -> None:
        """Load a page as a new visitor; it may still be waiting for the service."""
        self.send("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(ProtocolError):
                value = self.run(condition)
                if value:
                    return value
            assert not self.complaints, self.complaints
            time.sleep(0.02)
        raise AssertionError(f"never: {condition}; the page says {self.run('document.body.innerText')}")

    def settle(self) -> None:
        """Wait until nothing is asked any more and there is an answer."""
        self.wait("!document.querySelector('#result[aria-busy]') && !document.querySelector('#result').hidden")

    def text(self, selector: str) -> str:
        """What a visitor reads of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key where the focus is."""
        event: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key, "modifiers": modifiers}
        event["windowsVirtualKeyCode"] = _KEYS[key] if key in _KEYS else ord(key.upper())
        written = _TEXTS.get(key, key if len(key) == 1 else "")
        text = {"text": written} if written and not modifiers else {}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Type text where the focus is, instead of what is selected."""
        self.send("Input.insertText", text=text)

    def replace(self, selector: str, text: str) -> None:
        """Type text into a field instead of what is there."""
        self.run(f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.focus(); it.select(); }})()")
        self.write(text)

    def put(self, selector: str, value: str) -> None:
        """Move a slider or a list to a value, as a visitor's hand does."""
        self.run(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    def at(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """A point of an element, which is scrolled to."""
        box = self.run(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)});"
            "it.scrollIntoView({block: 'center', behavior: 'instant'}); const box = it.getBoundingClientRect();"
            "return [box.x, box.y, box.width, box.height]; })()"
        )
        return box[0] + across * box[2], box[1] + down * box[3]

    def mouse(self, *points: tuple[float, float]) -> None:
        """Press the button at the first point, and release it at the last."""
        for kind, (x, y) in (
            ("mousePressed", points[0]),
            *(("mouseMoved", point) for point in points[1:]),
            ("mouseReleased", points[-1]),
        ):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def click(self, selector: str) -> None:
        """Click on an element, as soon as it can be seen."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.getClientRects().length > 0")
        self.mouse(self.at(selector))

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a field for one."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def save_files_in(self, folder: Path) -> None:
        """Put what is downloaded into a folder, under its own name."""
        self.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def look(self, width: int, scheme: str, height: int = 900) -> None:
        """Be so many pixels wide and high, in light or dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save what the whole page looks like, or what can be seen of it without scrolling."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_browser(folder: Path) -> Iterator[Page]:
    """A browser with one tab, its own files below `folder`."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--hide-scrollbars"]
    with subprocess.Popen(
        [CHROMIUM, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            # A browser that is kept waiting by other tests may be too slow for pings, and is not lost for that.
            with connect(_address(folder, process), max_size=None, compression=None, ping_interval=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the tab listens, once the browser has said on which port."""
    end, port = time.monotonic() + SECONDS, folder / "DevToolsActivePort"
    while time.monotonic() < end:
        assert process.poll() is None, "the browser did not start"
        if port.exists() and (lines := port.read_text().split()):
            tabs = [
                each for each in httpx.get(f"http://127.0.0.1:{lines[0]}/json/list").json() if each["type"] == "page"
            ]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.02)
    raise AssertionError("the browser opened no tab")
