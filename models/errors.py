"""What can go wrong with a model, as one family that knows no HTTP.

ModelError (ValueError)
|- UnreadableCheckpoint     a file that cannot be, or must not be, loaded
|- NotEnoughMemory          no memory is left to load a file, which may be fine
|- TrialUnavailable         a file cannot be tried before it is loaded
|- UnusableDevice           a device that networks do not run on, or that is not there
|- InvalidInput             rows that the model does not take
|- MismatchedCheckpoints    checkpoints that cannot be one ensemble
|- BatchDependent           members whose answer to an input depends on what shares its batch, where it must not
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def printable(text: str) -> str:
    """The text with everything but letters, signs, blanks and line ends escaped: a terminal obeys some characters."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


class ModelError(ValueError):
    """Base class of everything this package raises on purpose."""


class UnreadableCheckpoint(ModelError):
    """A checkpoint that cannot be loaded, or is refused; the message names the file, the field and the rule."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = printable(reason)  # which may repeat names of the file
        super().__init__(f"{printable(self.path)}: {self.reason}")


class NotEnoughMemory(ModelError):
    """No memory is left to load a checkpoint, on the machine or on its device; the file itself may be fine."""

    def __init__(self, path: str | Path, cause: BaseException) -> None:
        said = (str(cause).strip().splitlines() or [""])[0][:200] or type(cause).__name__
        self.path = str(path)
        self.reason = (
            f"there is not enough memory to load it; the file may be fine. Free some, or have the model calibrated "
            f"with fewer members: {said}"
        )
        super().__init__(f"{path}: {self.reason}")


class TrialUnavailable(ModelError):
    """A checkpoint cannot be tried in a process of its own; the file itself may be fine."""

    def __init__(self, path: str | Path, why: str) -> None:
        self.path, self.why = str(path), why
        self.reason = (
            f"it cannot be tried in a process of its own before it is loaded ({printable(why)}). Let this program "
            "start processes; or, if you know the file, load it without a trial, by setting `load_trial` to none "
            "(`--load-trial none` of `dubio-serve`, `DUBIO_LOAD_TRIAL=none` in the environment of any command)."
        )
        super().__init__(f"{printable(self.path)}: {self.reason}")


class UnusableDevice(ModelError):
    """A device that networks do not run on, or that torch cannot reach."""


class InvalidInput(ModelError):
    """Input rows, or a number of samples, that the model does not take."""


class MismatchedCheckpoints(ModelError):
    """Checkpoints that cannot answer as one: too few, the same twice, other inputs or other classes."""


class BatchDependent(ModelError):
    """No way to run a committee gives an input the same answer to the last bit in any batch."""


def nearest(given: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that looks most like the given one, whatever their capitals.

    Args:
        given: What a user wrote; of a very long name the beginning is compared.
        known: The names that there are.
        cutoff: Least likeness, from 0 to 1.

    Returns:
        The name, or None where none is near.

    Source:
        Ratcliff and Obershelp's likeness, as in `difflib`.
    """
    names = {name.lower(): name for name in known}
    close = get_close_matches(given[:100].lower(), names, n=1, cutoff=cutoff)
    return names[close[0]] if close else None


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about a name that does not exist.

    Args:
        given: What a user wrote.
        known: The names that there are.
        otherwise: What to say where none is near.

    Returns:
        ``did you mean `name`?`` or `otherwise`.
    """
    name = nearest(given, known)
    return otherwise if name is None else f"did you mean `{name}`?"
