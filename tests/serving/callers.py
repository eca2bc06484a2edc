"""Callers that keep a service busy while it stops, and know what was promised to them."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

BODY = json.dumps({"instances": [[1, 2, 3, 4, 5]]}).encode()
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
        sent = 0
        while True:
            try:
                connection.request("POST", "/v1/predict", BODY, HEADERS)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as error:
                with self._lock:
                    self.wrong.append(f"request {sent} of a connection was not answered: {error!r}")
                return
            sent += 1
            with self._lock:
                self.answered += 1
                if answer.status != 200:
                    self.wrong.append(f"{answer.status} {content[:200]!r}")
            if answer.will_close:
                return
