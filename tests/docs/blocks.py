"""The code blocks of the documentation, and a folder in which they run as printed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "benchmarks/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
SERVES = re.compile(r"^(?:\.venv/bin/)?dubio-serve ")
READY_SECONDS = 120

SHIMS = {
    "python": '"{python}" "$@"',
    "dubio-train": '"{python}" -m dubio.training "$@"',
    "dubio-score": '"{python}" -m dubio.scale "$@"',
    "dubio-serve": '"{python}" -m dubio.serving "$@"',
    "curl": '"{curl}" --fail-with-body --no-progress-meter --noproxy "*" "$@"',  # an answer of 4xx fails the block
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    fenced = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    return [Block(page, language, textwrap.dedent(text)) for _, language, text in fenced]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Workspace:
    """A folder that looks like the repository to the commands, with a port of its own in place of 8000."""

    folder: Path
    port: int = field(default_factory=free_port)
    variables: dict[str, str] = field(default_factory=dict)
    service: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("dubio", "models", "scale", "serving", "training", "uncertainty", "configs", "requirements"):
            (self.folder / name).symlink_to(ROOT / name)
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder)
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        tools = self.folder / ".venv" / "bin"
        tools.mkdir(parents=True)
        for name, command in SHIMS.items():
            shim = tools / name
            shim.write_text(f"#!/bin/sh\nexec {command.format(python=sys.executable, curl=shutil.which('curl'))}\n")
            shim.chmod(0o755)
        (tools.parent / ".built").touch()

    @property
    def environment(self) -> dict[str, str]:
        tools = self.folder / ".venv" / "bin"
        return {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DUBIO_PORT": str(self.port),
            "PORT": str(self.port),
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "1",
            **self.variables,
        }

    def run(self, block: Block, before: str = "") -> str:
        """Run a block as printed, after the lines `before`; returns what it wrote.

        A command that serves goes on until the next one does, or until `stop`.
        """
        text = (before + block.text).replace(":8000", f":{self.port}")
        if block.language == "python":
            return self._finish([sys.executable, "-W", "error", "-c", text])
        commands, serve = [], None
        for line in text.splitlines():
            if SERVES.match(line):
                serve = line
                self._finish(["bash", "-euo", "pipefail", "-c", "\n".join(commands)])
                self._serve(serve)
                commands = [each for each in commands if each.startswith("export ")]
            else:
                commands.append(line)
        return self._finish(["bash", "-euo", "pipefail", "-c", "\n".join(commands)])

    def stop(self) -> None:
        """End the service in good order."""
        if self.service is not None:
            self.service.terminate()
            assert self.service.wait(60) == 0
            self.service = None

    def _finish(self, command: list[str]) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout[-2000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout

    def _serve(self, command: str) -> None:
        self.stop()
        self.service = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.service.poll() is None, f"'{command}' ended with status {self.service.returncode}"
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/v2/health/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"'{command}' is not ready after {READY_SECONDS} s")
