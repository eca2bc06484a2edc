"""The trial: a checkpoint is first loaded in a process of its own, with limits, and only what passes is loaded here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from dubio.models.checkpoint.archive import MISSING
from dubio.models.errors import ModelError, NotEnoughMemory, TrialUnavailable, UnreadableCheckpoint
from dubio.models.trial_client import PATIENCE, Outcome, servers

COPIES = 4  # times a file's own size that a load takes besides `Limits.size`


@dataclass(frozen=True)
class Limits:
    """What a trial may take.

    Attributes:
        seconds: Of processor time; by the clock `PATIENCE` times as many.
        size: Bytes of memory, besides `COPIES` times the file's own size.
    """

    seconds: float = 120.0
    size: int = 2**32

    @classmethod
    def of_environment(cls) -> Limits | None:
        """The limits that `DUBIO_LOAD_SECONDS` and `DUBIO_LOAD_BYTES` set; None where `DUBIO_LOAD_TRIAL` is none.

        Raises:
            ModelError: One of them says what it cannot.
        """
        trial = os.environ.get("DUBIO_LOAD_TRIAL", "process")
        if trial not in {"process", "none"}:
            raise ModelError(f"Expected DUBIO_LOAD_TRIAL to be process or none, but got {trial!r:.80}.")
        seconds = _number("DUBIO_LOAD_SECONDS", float, cls.seconds)
        size = _number("DUBIO_LOAD_BYTES", int, cls.size)
        return None if trial == "none" else cls(seconds, size)


def prepare() -> None:
    """Start what tries checkpoints, beside the start of this program; what prevents it is told by the first trial."""
    with suppress(OSError, ValueError):
        servers.prepare()


@contextmanager
def tried(
    path: str | Path,
    limits: Limits,
    what: Literal["load", "read"] = "load",
    trusted: Sequence[str] = (),
    strategy: str | None = None,
) -> Iterator[Outcome]:
    """Let a process of its own load, or only read, a checkpoint; the context is for doing the same here.

    Args:
        path: Of the file.
        limits: What the trial may take.
        what: Whether a predictor is to be built and asked, or only the content read.
        trusted: Module prefixes whose classes the file may name.
        strategy: How members are run.

    Raises:
        UnreadableCheckpoint: If the file is refused, takes more than it may, crashes the process that tries it, or is
            another one at the end of the context.
        NotEnoughMemory: If the system ended that process, as it does where memory runs out.
        TrialUnavailable: If there can be no such process.
    """
    if "__main__" in trusted:
        raise TrialUnavailable(path, "its network is a class of the script that runs; move it into a module of its own")
    if not hasattr(os, "fork"):
        raise TrialUnavailable(path, "this system cannot fork")
    descriptor = _open(path)
    try:
        before, size = identity(descriptor), os.fstat(descriptor).st_size
        try:
            request = {
                "what": what,
                "trusted": list(trusted),
                "strategy": strategy,
                "limits": {"seconds": limits.seconds, "size": limits.size + COPIES * size},
                "path": [os.path.abspath(each) for each in sys.path],
                "folder": os.getcwd(),
            }
            outcome = servers.ask(request, descriptor)
        except (OSError, ValueError) as error:
            raise TrialUnavailable(path, str(error)) from error
        _judge(path, outcome, limits)
        yield outcome
        if identity(path) != before:
            raise UnreadableCheckpoint(path, "changed between its trial and its load; wait until it is whole.")
    finally:
        os.close(descriptor)


def _open(path: str | Path) -> int:
    try:
        # A pipe of that name would otherwise wait for a writer for ever.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise UnreadableCheckpoint(path, MISSING) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UnreadableCheckpoint(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}.") from error


def identity(file: int | str | os.PathLike[str]) -> tuple[int, ...] | None:
    """What changes when another file takes the place of one, or it is written to; None where there is none."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _judge(path: str | Path, outcome: Outcome, limits: Limits) -> None:
    """Raise what a trial came to, unless it passed."""
    said = outcome.answer or {}
    if said.get("outcome") == "passed":
        return
    if said.get("outcome") == "unavailable":
        raise TrialUnavailable(path, str(said.get("reason")))
    if said.get("outcome") == "refused":
        raise UnreadableCheckpoint(path, str(said.get("reason")))
    if said.get("outcome") == "memory":
        _exceeded(path, f"more memory than the {limits.size} bytes that `load_bytes`", "load_bytes")
    if outcome.late or outcome.signal == signal.SIGALRM:
        taken = PATIENCE * limits.seconds
        _exceeded(path, f"more than {taken:g} s, {PATIENCE} times the {limits.seconds:g} that `load_seconds`")
    # Beyond its limit a process that ignores SIGXCPU is killed.
    if outcome.signal == signal.SIGXCPU or (outcome.signal == signal.SIGKILL and outcome.seconds >= limits.seconds):
        _exceeded(path, f"more processor time than the {limits.seconds:g} s that `load_seconds`")
    if outcome.signal == signal.SIGKILL:
        cause = MemoryError("the process that tried it was killed, as the system does where memory runs out (SIGKILL)")
        raise NotEnoughMemory(path, cause) from cause
    how = "it ended without an answer" if outcome.signal is None else _name(outcome.signal)
    raise UnreadableCheckpoint(
        path,
        f"its trial load crashed the process that tried it ({how}), which had {outcome.peak} bytes of memory, so it is "
        f"not loaded; do not trust this file, unless `load_bytes` is too small for it ({_where('load_bytes')}).",
    )


def _exceeded(path: str | Path, what: str, setting: str = "load_seconds") -> NoReturn:
    raise UnreadableCheckpoint(
        path,
        f"its trial load took {what} allows, so it was ended; if you know the file, raise it ({_where(setting)}).",
    )


def _where(setting: str) -> str:
    """Where a setting of the trial is set."""
    option = setting.replace("_", "-")
    return f"`--{option}` of `dubio-serve`, `DUBIO_{setting.upper()}` in the environment of any command"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def _number(variable: str, kind: type[Any], default: Any) -> Any:
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        number = kind(text)
    except ValueError:
        number = 0
    if not 0 < number < 2**60:
        raise ModelError(f"Expected {variable} to be a positive number, but got {text!r:.80}.")
    return number
