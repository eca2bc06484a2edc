"""What became of a call, on its way from the process that computes to the one that serves."""

from __future__ import annotations

import pickle
import traceback
from typing import Any, TypeVar

from dubio.models import device
from dubio.models.errors import ModelError
from dubio.models.memory import exhausted
from dubio.serving.errors import ServingError
from dubio.uncertainty.errors import UncertaintyError

E = TypeVar("E", bound=BaseException)

_OURS = (ModelError, ServingError, UncertaintyError)


def pack(answer: object) -> bytes:
    """An answer."""
    return pickle.dumps((answer, None), pickle.HIGHEST_PROTOCOL)


def pack_error(error: Exception) -> bytes:
    """Why there is none: the same error, or one of a kind that says the same, wherever it is raised again."""
    plain = _plain(error)
    try:
        data = pickle.dumps((None, _parts(plain)), pickle.HIGHEST_PROTOCOL)
        pickle.loads(data)
    except Exception:  # an error of somebody else's code, which holds anything
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        data = pickle.dumps((None, _parts(plain)), pickle.HIGHEST_PROTOCOL)
    return data


def unpack(data: bytes | memoryview) -> Any:
    """The answer, or the error raised again."""
    answer, error = pickle.loads(data)
    if error is not None:
        raise _assembled(*error)
    return answer


def _plain(error: Exception) -> Exception:
    """An error without what led to it, which is not sent."""
    if isinstance(error, _OURS):
        return error
    if (cause := exhausted(error)) is not None:
        return MemoryError(str(cause))
    if device.lost(error):
        return RuntimeError(str(error))
    error.add_note(f"In the process that computes:\n{''.join(traceback.format_exception(error))}")
    return error


def _parts(error: E) -> tuple[type[E], tuple[Any, ...], dict[str, Any]]:
    return type(error), error.args, vars(error)


def _assembled(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """The error as it was. Pickle would call its class with `args`, which are not what many were made from."""
    error = kind.__new__(kind, *args)
    error.args = args  # which MemoryError forgets
    error.__dict__.update(state)
    return error
