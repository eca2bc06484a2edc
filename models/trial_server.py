"""The process that forks those that try checkpoints, and what they do. Started by `dubio.models.trial` alone.

It has one thread, so that it may fork. It ends when its parent does, and kills a trial that runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NoReturn

import torch
from torch import nn

from dubio.models import loading, warmup
from dubio.models.checkpoint import file
from dubio.models.errors import ModelError
from dubio.models.memory import exhausted
from dubio.models.trial_client import IDLE_SECONDS, PATIENCE, Outcome
from dubio.uncertainty import Committee

_LOOK_SECONDS = 1.0  # how often to look whether the parent is still there
_LONGEST_REASON = 2000
_MEASURE_SECONDS = 0.1  # each strategy is called once at least, so that its time and memory are known
_PR_SET_PDEATHSIG = 1
_NICENESS = 5
_SPARE, _PIECE = 2**24, 2**16  # bytes


def main(descriptor: int) -> None:
    """Fork whenever asked, until the parent is gone or has asked for nothing for a while."""
    parent = os.getppid()
    for number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # wakes up whoever waits below
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    control = socket.socket(fileno=descriptor)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    _import()
    _spare()
    with open(os.devnull, "w", encoding="ascii") as null:
        os.dup2(null.fileno(), 2)  # what loads say is said by the parent's own
    _say(control, {})
    while select.select([control], [], [], IDLE_SECONDS)[0]:
        received = _receive(control)
        if received is None:
            return
        request, held = received
        outcome = _try(request, held, control, wake, parent)
        if outcome is None:
            return
        _say(control, asdict(outcome))


def _import() -> None:
    """Build a first committee: torch imports most of itself upon first use, which each fork would do anew."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)).eval()
    Committee(network, torch.zeros(1, 2), num_samples=2, measure_seconds=_MEASURE_SECONDS)


def _spare() -> None:
    """Keep memory for small pieces, so that these can still be had where a trial has reached its limit.

    oneDNN does not look whether it got them (a descriptor of some hundred bytes), and would crash: a file that takes
    too much would be said to be one not to trust.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    pieces = [libc.malloc(_PIECE) for _ in range(2 * _SPARE // _PIECE)]
    for address in pieces[::2]:  # those between them stay, so that together they are no room for a tensor
        libc.free(address)


def _receive(control: socket.socket) -> tuple[dict[str, Any], int] | None:
    """A request and the open file that it is about; None where the parent is gone."""
    head, descriptors, _, _ = socket.recv_fds(control, 4, 1)
    if len(head) < 4:
        return None
    size, message = int.from_bytes(head, "big"), b""
    while len(message) < size:
        part = control.recv(size - len(message))
        if not part:
            return None
        message += part
    return json.loads(message), descriptors[0]


def _say(control: socket.socket, answer: dict[str, Any]) -> None:
    control.sendall(json.dumps(answer).encode() + b"\n")


def _try(request: dict[str, Any], descriptor: int, control: socket.socket, wake: int, parent: int) -> Outcome | None:
    """Let a fork try a file and wait for it; None where the parent is gone."""
    answers, answer = os.pipe()
    end = time.monotonic() + PATIENCE * request["limits"]["seconds"] + 1  # the fork's own alarm comes first
    try:
        pid = os.fork()
    except OSError as error:
        os.close(answer)
        os.close(answers)
        os.close(descriptor)
        return Outcome({"outcome": "unavailable", "reason": f"fork: {error.strerror}"}, None, False, 0.0, 0)
    if not pid:
        control.close()
        os.close(answers)
        _run(request, descriptor, answer)
    os.close(answer)
    os.close(descriptor)
    late = gone = False
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        watched: list[socket.socket | int] = [control, wake]
        ready = select.select(watched, [], [], _LOOK_SECONDS)[0]
        if wake in ready:
            os.read(wake, 64)
        late = time.monotonic() > end
        gone = control in ready or os.getppid() != parent  # nothing is asked before the answer
        if late or gone:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # whatever it started
    _, status, used = os.wait4(pid, 0)
    said = _read(answers)
    if gone:
        return None
    code = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Outcome(said, -code if code < 0 else None, late, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


def _read(answers: int) -> dict[str, Any] | None:
    """The last words of a fork, which may be anything: the code that it trusted can write there."""
    os.set_blocking(answers, False)
    with os.fdopen(answers, "rb", buffering=0) as pipe:
        said = pipe.read(2**15) or b""
    try:
        answer = json.loads(said)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _run(request: dict[str, Any], descriptor: int, answer: int) -> NoReturn:
    """Try a file in this process, a fork, and end it."""
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            _limit(**request["limits"])
        except (OSError, ValueError) as error:
            said = {"outcome": "unavailable", "reason": f"its limits cannot be set: {error}"}
        else:
            said = _attempt(request, f"/dev/fd/{descriptor}")
        os.write(answer, json.dumps(said).encode())
    finally:
        os._exit(0)


def _limit(seconds: float, size: int) -> None:
    """Bound what this process may take, and let others go first."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")  # where memory runs out, this process goes first
    os.nice(_NICENESS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)
    whole = max(1, round(seconds))
    _bound(resource.RLIMIT_CPU, whole, whole + 1)
    _bound(resource.RLIMIT_CORE, 0, 0)
    # Not the address space, most of which a program never uses. macOS takes this limit, but does not keep it.
    _bound(resource.RLIMIT_DATA, _held() + size, _held() + size)


def _bound(which: int, soft: int, hard: int) -> None:
    """Set a limit, or keep a stricter one that this process came with."""
    most = resource.getrlimit(which)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(which, (soft, hard))


def _held() -> int:
    """Bytes of memory of its own that this process has already."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmData:")) * 1024
    except OSError:
        return 0


def _attempt(request: dict[str, Any], path: str) -> dict[str, str]:
    """What a load comes to."""
    sys.path[:] = request["path"]
    try:
        os.chdir(request["folder"])
        if request["what"] == "read":
            file.data_record(path, file.read_content(path))
        else:
            warmup.ask(
                loading.load(
                    path,
                    trusted=request["trusted"],
                    strategy=request["strategy"],
                    measure_seconds=_MEASURE_SECONDS,
                    trial=False,
                )
            )
    except BaseException as error:
        if isinstance(error, Exception) and exhausted(error) is not None:
            return {"outcome": "memory"}
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if not isinstance(error, ModelError):
            reason = f"its trial load failed with {type(error).__name__}: {error}"
        return {"outcome": "refused", "reason": reason[:_LONGEST_REASON]}
    return {"outcome": "passed"}


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # at once: there is nothing to put away, and torch takes its time
