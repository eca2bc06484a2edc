"""`dubio-serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).parents[2]


class Command:
    """`dubio-serve` in a process of its own, with one torch thread."""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self._line(arguments),
            cwd=ROOT,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def refused(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code of a command that cannot start, and the one line, apart from its log, that says why."""
        done = self.run(*arguments, **environment)
        assert "Traceback" not in done.stderr
        assert "Cannot serve" not in done.stderr  # which would say the same twice
        [line] = [line for line in done.stderr.splitlines() if line.startswith("dubio-serve: ")]
        return done.returncode, line

    @contextmanager
    def started(self, *arguments: str, wait: bool = True, **environment: str) -> Iterator[Running]:
        """Run it on a free port; unless told not to `wait`, until it answers."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                self._line((*arguments, "--port", "0")),
                cwd=ROOT,
                env=self._environment(environment),
                stdout=out,
                stderr=err,
            )
            running = Running(process, out, err)
            try:
                if wait:
                    running.wait_for("Serving")
                yield running
            finally:
                for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                    with suppress(psutil.NoSuchProcess):  # it ended with its parent
                        child.kill()
                process.kill()
                process.wait()

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "dubio.serving", *arguments]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "DUBIO_TORCH_THREADS": "1", "OMP_NUM_THREADS": "1", **more}


@dataclass
class Running:
    """A command that runs."""

    process: subprocess.Popen
    _out: IO[str]
    _err: IO[str]

    @property
    def output(self) -> str:
        """What it wrote to its standard output so far."""
        return self._read(self._out)

    @property
    def log(self) -> str:
        """What it wrote to its standard error so far."""
        return self._read(self._err)

    @property
    def url(self) -> str:
        """Where it serves, by its start-up line."""
        return re.search(r"Serving .* on (http://\S+)", self.log)[1]

    @property
    def computing(self) -> psutil.Process:
        """The process in which it predicts."""
        process = psutil.Process(self.process.pid)
        apart = [each for each in process.children() if "dubio.serving.compute.child" in each.cmdline()]
        return apart[0] if apart else process

    def wait_for(self, words: str) -> None:
        """Until its log holds `words`."""
        while words not in self.log:
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def finish(self, *signals: signal.Signals) -> int:
        """Send signals, and give the exit code."""
        for each in signals:
            self.process.send_signal(each)
        code = self.process.wait(timeout=30)
        assert "Traceback" not in self.log, self.log
        return code

    @staticmethod
    def _read(file: IO[str]) -> str:
        # Not by seek and read: the process shares the file's position.
        return os.pread(file.fileno(), 1 << 20, 0).decode()
