"""How a shadow compares with the version that answers, and the evidence that it is not worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dubio.serving.errors import InvalidState
from dubio.uncertainty import FlagEProcess
from dubio.uncertainty.detection import martingale
from dubio.uncertainty.errors import UncertaintyError

_DEVIATIONS = 1.96  # of a mean's normal law, for 95%


@dataclass(frozen=True)
class Pair:
    """Who is compared; also where it is kept.

    Attributes:
        model: Their name.
        live: The version that answers, and its fingerprint.
        shadow: The version that does not, and its fingerprint.
        margin: How much worse the shadow may be.
        epsilon: How likely a worse one may be taken for one that is not, ever.
    """

    model: str
    live: tuple[str, str]
    shadow: tuple[str, str]
    margin: float
    epsilon: float

    @property
    def file(self) -> str:
        """Another one for other weights of either."""
        (live, live_weights), (shadow, shadow_weights) = self.live, self.shadow
        return f"{self.model}-{live}-{live_weights[:16]}-{shadow}-{shadow_weights[:16]}.json"

    def begin(self) -> Comparison:
        """Nothing was compared yet."""
        new = FlagEProcess(epsilon=self.epsilon, alpha=1 - self.margin)
        return Comparison(self, new, new)

    def load(self, text: bytes) -> Comparison:
        """Go on with what was kept; raises what `Comparison.load` does."""
        return Comparison.load(self, text)

    @cached_property
    def content(self) -> str:
        """All of it as JSON."""
        return orjson.dumps(asdict(self)).decode()

    @cached_property
    def digest(self) -> str:
        """By which the store names it."""
        return sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """What both said about the rows of a request, and how long it took.

    Attributes:
        disagree: Whether the labels differ, of each row.
        live: Whether the version that answered flagged it; empty if it makes no promise.
        shadow: Whether the shadow did; empty if it makes none.
        live_seconds: Until the answer was there.
        shadow_seconds: That the shadow computed.
    """

    disagree: Sequence[bool]
    live: Sequence[bool]
    shadow: Sequence[bool]
    live_seconds: float
    shadow_seconds: float


@dataclass(frozen=True)
class Mean:
    """The mean of some numbers, as far as they are known."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> Mean:
        """One number more."""
        return Mean(self.count + 1, self.total + value, self.squares + value * value)

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """The mean, and the ends of its 95% interval by the normal law; None before there are two numbers."""
        if self.count < 2:
            return None
        mean = self.total / self.count
        variance = max(0.0, self.squares - self.count * mean * mean) / (self.count - 1)
        half = _DEVIATIONS * math.sqrt(variance / self.count)
        return mean, max(0.0, mean - half), mean + half


@dataclass(frozen=True)
class Comparison:
    """The evidence that a shadow is not worse than the version that answers by more than a margin m. Immutable.

    Without true labels nobody knows who is right. But what may have become worse can be bounded. Call a row *changed*
    if the labels differ, and *newly flagged* if the shadow flags it and the live version does not. Whatever the truth,

    - accuracy(shadow) >= accuracy(live) - P(changed): a row that the live version gets right and the shadow does not is
      changed;
    - flag rate(shadow) <= flag rate(live) + P(newly flagged), likewise.

    The shadow is *worse* if P(changed) >= m or P(newly flagged) >= m. While the first holds, whatever came before, a
    row is unchanged with probability 1 - m at most, and so an e-process for "at most 1 - m of the outcomes are true"
    that is told whether rows are unchanged (`FlagEProcess` with alpha = 1 - m) ever reaches 1 / epsilon with a chance
    of epsilon at most (Ville 1939); likewise for the second with rows that are not newly flagged. Both e-processes have
    to reach it: if the shadow is worse, the one that speaks of what is worse has to, with a chance of epsilon at
    most, whenever one looks. The smaller of the two e-values is an e-value for "the shadow is worse".

    That bounds what changes for the worse: a shadow that corrects more than m of the labels is taken for worse as well,
    unless true labels tell (`dubio.serving.shadow.evidence`). And it speaks of the rows that were compared: which are
    skipped must not depend on what is said about them, and does not.

    Attributes:
        pair: Who is compared.
        unchanged: Evidence that P(changed) < m.
        unflagged: Evidence that P(newly flagged) < m; of rows where both make a promise.
        disagreements: Rows of which the labels differ.
        judged: Rows for which both make a promise.
        live_flagged: Of these, flagged by the version that answers.
        shadow_flagged: Flagged by the shadow.
        newly_flagged: Flagged by the shadow alone.
        live_seconds: Of a request.
        shadow_seconds: Of a request.
    """

    pair: Pair
    unchanged: FlagEProcess
    unflagged: FlagEProcess
    disagreements: int = 0
    judged: int = 0
    live_flagged: int = 0
    shadow_flagged: int = 0
    newly_flagged: int = 0
    live_seconds: Mean = field(default_factory=Mean)
    shadow_seconds: Mean = field(default_factory=Mean)

    @property
    def rows(self) -> int:
        """How many were compared."""
        return self.unchanged.seen

    def observe(self, rows: Rows) -> Self:
        """The comparison after a request more."""
        pairs = list(zip(rows.live, rows.shadow, strict=True)) if rows.live and rows.shadow else []
        newly = [shadow and not live for live, shadow in pairs]
        return replace(
            self,
            unchanged=self.unchanged.observe([not disagree for disagree in rows.disagree]),
            unflagged=self.unflagged.observe([not new for new in newly]),
            disagreements=self.disagreements + sum(rows.disagree),
            judged=self.judged + len(pairs),
            live_flagged=self.live_flagged + sum(live for live, _ in pairs),
            shadow_flagged=self.shadow_flagged + sum(shadow for _, shadow in pairs),
            newly_flagged=self.newly_flagged + sum(newly),
            live_seconds=self.live_seconds.add(rows.live_seconds),
            shadow_seconds=self.shadow_seconds.add(rows.shadow_seconds),
        )

    def dump(self) -> bytes:
        """All of it as JSON: `load` goes on with the very same numbers."""
        names = ("disagreements", "judged", "live_flagged", "shadow_flagged", "newly_flagged")
        return orjson.dumps(
            {
                "format": 1,
                "pair": [self.pair.model, *self.pair.live, *self.pair.shadow],
                "unchanged": self.unchanged.dump(),
                "unflagged": self.unflagged.dump(),
                **{name: getattr(self, name) for name in names},
                "live_seconds": asdict(self.live_seconds),
                "shadow_seconds": asdict(self.shadow_seconds),
            }
        )

    @classmethod
    def load(cls, pair: Pair, text: bytes) -> Comparison:
        """Go on with what `dump` gave.

        Raises:
            InvalidState: If it is no such state, or one of something else.
        """
        try:
            record = _Record.model_validate_json(text)
            processes = [martingale.load(each) for each in (record.unchanged, record.unflagged)]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InvalidState(f"{where}: {first['msg']}") from error
        except UncertaintyError as error:
            raise InvalidState(str(error).rstrip(".")) from error
        if record.pair != [pair.model, *pair.live, *pair.shadow]:
            raise InvalidState("it compares other versions or weights")
        unchanged, unflagged = (_checked(each, pair) for each in processes)
        flagged = (record.live_flagged, record.shadow_flagged, record.newly_flagged)
        if (
            record.disagreements > unchanged.seen
            or unflagged.seen != record.judged
            or not max(flagged) <= record.judged <= unchanged.seen
            or record.newly_flagged > record.shadow_flagged
        ):
            raise InvalidState(f"its counts do not go with the {unchanged.seen} rows that it has seen")
        return cls(
            pair,
            unchanged,
            unflagged,
            record.disagreements,
            record.judged,
            *flagged,
            Mean(**record.live_seconds.model_dump()),
            Mean(**record.shadow_seconds.model_dump()),
        )


def _checked(process: martingale.EProcess, pair: Pair) -> FlagEProcess:
    if isinstance(process, FlagEProcess) and (process.epsilon, process.alpha) == (pair.epsilon, 1 - pair.margin):
        return process
    raise InvalidState("it was made with another `shadow_margin` or `shadow_alpha`")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _MeanRecord(_Strict):
    count: int = Field(ge=0)
    total: float = Field(ge=0, allow_inf_nan=False)
    squares: float = Field(ge=0, allow_inf_nan=False)


class _Record(_Strict):
    """A state on disk."""

    format: Literal[1]
    pair: list[str]
    unchanged: dict[str, Any]
    unflagged: dict[str, Any]
    disagreements: int = Field(ge=0)
    judged: int = Field(ge=0)
    live_flagged: int = Field(ge=0)
    shadow_flagged: int = Field(ge=0)
    newly_flagged: int = Field(ge=0)
    live_seconds: _MeanRecord
    shadow_seconds: _MeanRecord
