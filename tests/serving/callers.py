"""Callers that keep a service busy while it stops, and know what was promised to them."""

from __future__ import annotations

import json
import math
import threading
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

BODY = json.dumps({"instances": [[1, 2, 3, 4, 5]]}).encode()
_IDLE_SECONDS = 0.4  # less than what the service waits for on connections that are idle while it ends
HEADERS = {"Content-Type": "application/json"}


class Callers:
    """Each asks again and again, on one connection for as long as the service keeps it open."""

    def __init__(self, url: str, count: int) -> None:
        """Begin to ask."""
        self.answered = 0
        self.wrong: list[str] = []
        self._port = urlsplit(url).port
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until nobody is let in any more; all callers go on until then."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.connect()
            except OSError:  # the door is closed: nothing was promised
                return
            try:
                self._ask(connection)
            finally:
                connection.close()

    def _ask(self, connection: HTTPConnection) -> None:
        sent, idle_since = 0, time.monotonic()
        while True:
            asked = math.inf
            try:
                connection.request("POST", "/v1/predict", BODY, HEADERS)
                asked = time.monotonic()
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as error:
                if min(asked, time.monotonic()) - idle_since > _IDLE_SECONDS:
                    return  # a connection that says nothing for so long while the service ends is closed
                with self._lock:
                    self.wrong.append(f"request {sent} of a connection was not answered: {error!r}")
                return
            sent, idle_since = sent + 1, time.monotonic()
            with self._lock:
                self.answered += 1
                if answer.status != 200:
                    self.wrong.append(f"{answer.status} {content[:200]!r}")
            if answer.will_close:
                return
