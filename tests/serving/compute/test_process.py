"""The process that computes: who calls is answered, holds up no other, and is told of its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from types import SimpleNamespace

import psutil
import pytest

from dubio.serving.compute import process as module
from dubio.serving.compute.process import ComputeProcess, prepare
from dubio.serving.errors import ComputationLost, ProcessUnavailable

ENGINE = SimpleNamespace(sleep=time.sleep, pid=os.getpid, end=os._exit, leave=sys.exit, add=sum)
START = """
import os, sys, time
from types import SimpleNamespace
from dubio.serving.compute.process import ComputeProcess
process = ComputeProcess(trials=False)
process.host(SimpleNamespace(pid=os.getpid, sleep=time.sleep), prepare=int)
print(process.call("pid"), flush=True)
process.call("sleep", 600)
"""


@pytest.fixture
def process() -> Iterator[ComputeProcess]:
    process = ComputeProcess(trials=False)
    process.host(ENGINE, prepare=partial(os.putenv, "DUBIO_TEST_PREPARED", "1"))
    yield process
    process.close()


def test_it_answers_in_another_process_and_raises_what_was_raised_there(process: ComputeProcess) -> None:
    assert process.call("pid") == process.pid != os.getpid()
    assert process.call("add", [1, 2, 3]) == 6
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        process.call("add", ["one"])
    assert "In the process that computes" in caught.value.__notes__[0]
    with pytest.raises(AttributeError):
        process.call("nothing")
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        process.call("leave", 3)
    with pytest.raises((TypeError, AttributeError)):  # what cannot be sent spoils no connection
        process.call("add", [threading.Lock()])
    large = bytes(5_000_000)
    assert process.call("add", [[large]], []) == [large]
    assert process.lost is None


def test_a_call_that_takes_long_holds_up_no_other_and_ends_with_the_process(process: ComputeProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        long = [pool.submit(process.call, "sleep", 600) for _ in range(3)]
        short = [pool.submit(process.call, "add", [number]) for number in range(200)]
        assert [each.result(60) for each in short] == list(range(200))
        assert not any(each.done() for each in long)
        process.close()
        wait(long, 60)
        assert all(isinstance(each.exception(), ComputationLost) for each in long)
    assert process.lost is None  # it was to end
    with pytest.raises(ComputationLost):
        process.call("pid")


def kill_it(process: ComputeProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)


def have_it_end(process: ComputeProcess) -> None:
    with pytest.raises(ComputationLost):
        process.call("end", 3)


@pytest.mark.parametrize(
    ("kill", "how"), [(kill_it, "SIGKILL, as where memory runs out"), (have_it_end, "exit code 3")]
)
def test_its_end_is_told(process: ComputeProcess, kill: Callable, how: str) -> None:
    process.call("pid")
    kill(process)
    for _ in range(2):
        with pytest.raises(ComputationLost, match=f"^The process that computes ended with {how}, so the service's "):
            process.call("pid")
    assert process.lost == f"The process that computes ended with {how}"
    process.close()
    assert process.lost == f"The process that computes ended with {how}"


def test_what_stops_a_service_does_not_stop_it_before(process: ComputeProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(process.pid, number)
    assert process.call("pid") == process.pid
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT} == set()


def test_it_does_not_outlive_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(30)  # raises if it goes on


def test_where_no_process_can_be_started_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ProcessUnavailable, match=r"No such file.* set `predict_in` to thread\.$"):
        ComputeProcess(trials=False)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGINT} == set()


def test_what_is_started_beside_the_service_is_what_its_settings_want(
    settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(module.trial, "prepare", lambda: prepared.append(True))
    assert prepare(settings(predict_in="thread", load_trial="none")) is None
    assert prepared == []
    assert prepare(settings(predict_in="thread", load_trial="process")) is None
    assert prepared == [True]
    process = prepare(settings(predict_in="process", load_trial="process"))
    assert process is not None
    process.close()
    assert prepared == [True]
