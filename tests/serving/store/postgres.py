"""A PostgreSQL of the tests' own, from Debian's packages or wherever its programs are."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# It refuses to run as root.
USERS = ("postgres", "nobody")


def find_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *([Path(found).parent] if found else []),
    ]
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@dataclass
class Postgres:
    """A server that listens on a socket in its own folder."""

    programs: Path
    folder: Path
    prefix: tuple[str, ...]

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-o", options, "-l", self.folder / "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def create(self, name: str) -> str:
        """A new database; gives its URL."""
        self._run("createdb", "-h", self.folder, name)
        user = self.prefix[2] if self.prefix else pwd.getpwuid(os.getuid()).pw_name
        return f"postgresql://{user}@/{name}?host={quote(str(self.folder), safe='')}"

    def initialise(self) -> None:
        self._run("initdb", "--no-sync", "-A", "trust", "-D", self.folder / "data")

    def _run(self, program: str, *arguments: str | Path) -> None:
        line = [*self.prefix, self.programs / program, *arguments]
        # Its children keep the output open, so it goes to a file.
        with (self.folder / "output").open("ab") as output:
            done = subprocess.run(list(map(str, line)), stdout=output, stderr=output, cwd=self.folder, timeout=60)
        assert done.returncode == 0, (self.folder / "output").read_text()


@contextmanager
def running(programs: Path) -> Iterator[Postgres]:
    """A fresh server."""
    # pytest's own folders are closed to others, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="dubio-pg-"))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next(name for name in USERS if name in known)
        shutil.chown(folder, user)
        prefix = ("runuser", "-u", user, "--")
    server = Postgres(programs, folder, prefix)
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
