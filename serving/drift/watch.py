"""What the rows of a version say about drift so far: the evidence, and the alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dubio.serving.drift.subject import Subject
from dubio.serving.errors import InvalidState
from dubio.uncertainty import FlagEProcess, PValueEProcess
from dubio.uncertainty.detection import martingale
from dubio.uncertainty.errors import UncertaintyError

# The alarm is looked for every so many rows.
_ROWS_AT_A_TIME = 32


@dataclass(frozen=True)
class Rows:
    """Rows that were answered.

    Attributes:
        p_values: Of each.
        flagged: Whether each was.
    """

    p_values: NDArray[np.float64]
    flagged: NDArray[np.bool_]

    @classmethod
    def parts(cls, several: Sequence[Rows]) -> Iterator[Rows]:
        """All of them in their order, a few at a time."""
        p_values = np.concatenate([rows.p_values for rows in several])
        flagged = np.concatenate([rows.flagged for rows in several])
        for start in range(0, len(flagged), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            yield cls(p_values[part], flagged[part])


@dataclass(frozen=True)
class Alarm:
    """When the e-value reached its level.

    Attributes:
        time: In seconds since 1970.
        rows: That had been seen.
    """

    time: float
    rows: int


@dataclass(frozen=True)
class Watch:
    """The evidence against "these rows are like the calibration rows". Immutable.

    The e-value is the mean of those of two e-processes, on flags and on p-values, and so that of one: it ever reaches
    1 / epsilon with probability epsilon at most. Of an ensemble flags alone are watched.

    Attributes:
        subject: What is watched.
        flags: The evidence of the flags.
        p_values: The evidence of the p-values; None for an ensemble.
        flagged: Rows that were flagged.
        since: When the first rows came, in seconds since 1970; None until then.
        alarm: None until it is raised; it stays.
    """

    subject: Subject
    flags: FlagEProcess
    p_values: PValueEProcess | None
    flagged: int = 0
    since: float | None = None
    alarm: Alarm | None = None

    @classmethod
    def begin(cls, subject: Subject, epsilon: float) -> Self:
        """Nothing was seen yet.

        Args:
            subject: What is watched.
            epsilon: How likely a false alarm may be, ever; see `Subject.false_alarm`.
        """
        flags = FlagEProcess(epsilon=epsilon, alpha=subject.alpha)
        if subject.rows is None:
            return cls(subject, flags, None)
        return cls(subject, flags, PValueEProcess(epsilon=epsilon, rows=subject.rows, delta=epsilon))

    @property
    def rows(self) -> int:
        """How many were seen."""
        return self.flags.seen

    @property
    def level(self) -> float:
        """The e-value at which the alarm is raised."""
        return 1 / self.flags.epsilon

    @property
    def e_value(self) -> float:
        """The evidence now; 1 says nothing."""
        if self.p_values is None:
            return self.flags.e_value
        return (self.flags.e_value + self.p_values.e_value) / 2

    def observe(self, several: Sequence[Rows], now: float) -> Watch:
        """The evidence after more rows, in the order in which they came, at a time in seconds since 1970."""
        watch = replace(self, since=now if self.since is None else self.since)
        for rows in Rows.parts(several):
            p_values = watch.p_values and watch.p_values.observe(rows.p_values.tolist())
            flags = watch.flags.observe(rows.flagged.tolist())
            watch = replace(watch, flags=flags, p_values=p_values, flagged=watch.flagged + int(rows.flagged.sum()))
            if watch.alarm is None and watch.e_value >= watch.level:
                watch = replace(watch, alarm=Alarm(now, watch.rows))
        return watch

    def dump(self) -> bytes:
        """All of it as JSON: `load` goes on with the very same numbers."""
        return orjson.dumps(
            {
                "format": 1,
                "model": self.subject.model,
                "version": self.subject.version,
                "checkpoint": self.subject.checkpoint,
                "since": self.since,
                "flagged": self.flagged,
                "alarm": self.alarm and asdict(self.alarm),
                "flags": self.flags.dump(),
                "p_values": self.p_values and self.p_values.dump(),
            }
        )

    @classmethod
    def load(cls, subject: Subject, epsilon: float, text: bytes) -> Watch:
        """Go on with what `dump` gave.

        Raises:
            InvalidState: If it is no such state, or one of something else.
        """
        try:
            record = _Record.model_validate_json(text)
            flags = martingale.load(record.flags)
            p_values = None if record.p_values is None else martingale.load(record.p_values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InvalidState(f"{where}: {first['msg']}") from error
        except UncertaintyError as error:
            raise InvalidState(str(error).rstrip(".")) from error
        new = cls.begin(subject, epsilon)
        loaded = replace(new, flagged=record.flagged, since=record.since)
        if record.alarm is not None:
            loaded = replace(loaded, alarm=Alarm(record.alarm.time, record.alarm.rows))
        if (record.model, record.version, record.checkpoint) != (subject.model, subject.version, subject.checkpoint):
            raise InvalidState(f"it is of model {record.model[:100]!r} version {record.version[:40]!r}, other weights")
        if not isinstance(flags, FlagEProcess) or _terms(flags) != _terms(new.flags):
            raise InvalidState("it was made with another `drift_alpha` or promise")
        loaded = replace(loaded, flags=flags)
        if new.p_values is not None:
            if not isinstance(p_values, PValueEProcess) or _terms(p_values) != _terms(new.p_values):
                raise InvalidState("it was made with another `drift_alpha` or calibration")
            loaded = replace(loaded, p_values=p_values)
        rows = loaded.rows
        counts = [record.flagged, rows if p_values is None else p_values.seen, loaded.alarm.rows if loaded.alarm else 0]
        if max(counts) > rows or (p_values is not None and p_values.seen != rows) or (rows > 0) != bool(loaded.since):
            raise InvalidState(f"its counts {counts} do not go with the {rows} rows that it has seen")
        return loaded


@dataclass(frozen=True)
class WatchSlot:
    """Where the evidence of a version is kept.

    Attributes:
        subject: What is watched.
        epsilon: How likely a false alarm may be, ever.
    """

    subject: Subject
    epsilon: float

    @property
    def file(self) -> str:
        """Old and new weights answer side by side for a moment, and those of before may come back."""
        return f"{self.subject.model}-{self.subject.version}-{self.subject.checkpoint[:16]}.json"

    def begin(self) -> Watch:
        """Nothing was seen yet."""
        return Watch.begin(self.subject, self.epsilon)

    def load(self, text: bytes) -> Watch:
        """Go on with what was kept; raises what `Watch.load` does."""
        return Watch.load(self.subject, self.epsilon, text)


class _AlarmRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    time: float = Field(gt=0, allow_inf_nan=False)
    rows: int = Field(ge=1)


class _Record(BaseModel):
    """A state on disk."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    model: str
    version: str
    checkpoint: str
    since: float | None = Field(gt=0, allow_inf_nan=False)
    flagged: int = Field(ge=0)
    alarm: _AlarmRecord | None
    flags: dict[str, Any]
    p_values: dict[str, Any] | None


def _terms(process: FlagEProcess | PValueEProcess) -> tuple[Any, ...]:
    """What an e-process bets on."""
    own = (process.alpha,) if isinstance(process, FlagEProcess) else (process.rows, process.delta)
    return type(process), process.epsilon, *own
