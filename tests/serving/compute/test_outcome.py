"""Answers and errors on their way between two processes: what arrives says what was sent."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from dubio.models import device
from dubio.models import errors as model_errors
from dubio.models.memory import exhausted
from dubio.serving import errors as serving_errors
from dubio.serving.compute import outcome
from dubio.uncertainty import errors as uncertainty_errors


def arrived(error: Exception) -> Exception:
    """The same error, raised on the other side."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 # of any class
        outcome.unpack(outcome.pack_error(error))
    return caught.value


def test_an_answer_arrives_as_it_was() -> None:
    assert outcome.unpack(outcome.pack((1, {"a": None}))) == (1, {"a": None})
    assert outcome.unpack(outcome.pack(None)) is None


MADE = {
    model_errors.UnreadableCheckpoint: (Path("a.ckpt"), "is damaged"),
    model_errors.NotEnoughMemory: ("a.ckpt", MemoryError("2 GiB")),
    model_errors.TrialUnavailable: ("a.ckpt", "no fork"),
    serving_errors.OutOfMemory: (),
    serving_errors.DeviceLost: (),
}
OURS = [
    kind
    for module in (model_errors, serving_errors, uncertainty_errors)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_each_of_our_errors_arrives_with_all_that_it_says(kind: type[Exception]) -> None:
    more = {"retry_after": 3} if kind in (serving_errors.Overloaded, serving_errors.TooManyCalls) else {}
    error = kind(*MADE.get(kind, ("Expected this, but got that.",)), **more)
    told = arrived(error)
    assert type(told) is kind
    assert (str(told), told.args, vars(told)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("memory", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried ...")])
def test_memory_that_ran_out_is_known_there_and_so_is_a_cause(memory: Exception) -> None:
    assert exhausted(arrived(memory)) is not None
    try:
        raise ValueError("wrong") from memory
    except ValueError as error:
        told = arrived(error)
    assert exhausted(told) is not None
    assert str(told) == str(memory)


def test_a_lost_device_is_known_there() -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")
    assert device.lost(error)
    told = arrived(error)
    assert device.lost(told)
    assert str(told) == str(error)


def test_what_nobody_expected_brings_its_traceback() -> None:
    def fails() -> None:
        raise KeyError("nothing of this name")

    with pytest.raises(KeyError) as caught:
        fails()
    told = arrived(caught.value)
    assert type(told) is KeyError
    assert "in fails" in told.__notes__[0]


class LockedError(Exception):
    """Holds what no other process can have."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class DemandingError(Exception):
    """Cannot be made again."""

    def __reduce__(self) -> tuple:
        return (int, ("no number",))


@pytest.mark.parametrize("error", [LockedError("stuck"), DemandingError(threading.Lock())])
def test_an_error_that_cannot_travel_is_told_in_words(error: Exception) -> None:
    told = arrived(error)
    assert type(told) is RuntimeError
    assert str(told) == f"{type(error).__name__}: {error}"
