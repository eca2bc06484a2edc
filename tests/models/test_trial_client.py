"""The process that forks trials: one for all, started when needed, gone with whoever wanted it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dubio.models import load, trial_client
from dubio.models.errors import TrialUnavailable
from dubio.models.trial import Limits, tried
from tests.models.processes import gone, wait


def _servers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if _serves(each)]


def _serves(process: psutil.Process) -> bool:
    try:
        return trial_client._SERVER in " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return False


def test_one_process_forks_all_trials(saved: Path):
    with tried(saved, Limits(), "read"):
        wait(lambda: len(_servers()) == 1)
        (server,) = _servers()
    open_files = psutil.Process().num_fds()
    for _ in range(3):
        with tried(saved, Limits(), "read"):
            assert _servers() == [server]
            assert server.children() == []
    assert server.num_threads() == 1
    assert psutil.Process().num_fds() <= open_files


def test_a_process_that_ended_before_its_first_trial_is_started_again(saved: Path):
    servers = trial_client.Servers()
    servers.prepare()
    server = servers._server
    assert server is not None
    server.process.kill()  # or it ended by itself, for want of a trial
    wait(lambda: server.process.returncode is not None)
    assert not server.fresh
    servers.prepare()
    assert servers._server is not server
    servers.close()


def test_a_trial_ends_with_the_program_that_wanted_it(trusting: Callable[[str], tuple[Path, str]], tmp_path: Path):
    note = tmp_path / "pids"
    path, module = trusting(
        f"""
        import os, time
        open({str(note)!r}, "w").write(f"{{os.getpid()}} {{os.getppid()}} ")
        time.sleep(600)
        """
    )
    program = f"from dubio.models import load\nload({str(path)!r}, trusted=[{module!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DUBIO_LOAD_TRIAL": "process"}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        try:
            wait(lambda: note.exists() and note.read_text().endswith(" "))
        finally:
            process.kill()
    for pid in note.read_text().split():
        gone(int(pid))


def test_an_interrupted_trial_ends_and_leaves_nothing(trusting: Callable[[str], tuple[Path, str]], tmp_path: Path):
    note = tmp_path / "pid"
    path, module = trusting(
        f"""
        import os, signal, time
        open({str(note)!r}, "w").write(str(os.getpid()))
        os.kill({os.getpid()}, signal.SIGINT)
        time.sleep(600)
        """
    )
    # Whoever started the tests may have told them to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(path, trusted=[module], trial=Limits(seconds=300))
    finally:
        signal.signal(signal.SIGINT, before)
    gone(int(note.read_text()))
    wait(lambda: _servers() == [])  # no zombie either


@pytest.fixture
def no_server() -> Iterator[None]:
    """Without a process that is there already."""
    trial_client.servers.close()
    yield
    trial_client.servers.close()


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(("executable", "why"), [("/nonexistent/python", "No such file"), ("/bin/false", "ended")])
def test_without_a_process_nothing_is_loaded(saved: Path, executable: str, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(TrialUnavailable, match=rf"{why}.*DUBIO_LOAD_TRIAL=none"):
        load(saved, trial=Limits())
    monkeypatch.setenv("DUBIO_LOAD_TRIAL", "none")
    assert load(saved, strategy="chain").detector is not None
