"""E-processes: evidence that may be looked at after every input, of drift and of which of two answers is right."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Self

from dubio.uncertainty.detection.interval import clopper_pearson
from dubio.uncertainty.errors import UncertaintyError

# Alternatives that are bet on: how many times larger the odds of a flag are than alpha allows.
ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
# And how far p-values are pushed towards 0: they are distributed as U^(1 / power).
POWERS = (0.2, 0.4, 0.6, 0.8, 0.9)
# And of the largest stake that can be paid if the first of two answers is right and the second is not.
STAKES = (0.05, 0.1, 0.2, 0.4, 0.7, 0.95)
# Evidence counts up to here. Less than it is than a game would allow, so nothing is promised that does not hold.
MOST = 1e300
MAX_ROWS = 10_000_000

Payoffs = tuple[tuple[float, ...], ...]  # of each outcome, by bet


@dataclass(frozen=True)
class EProcess(ABC):
    """Evidence against "these inputs are still like the calibration rows", which grows when they are not. Immutable.

    Each outcome multiplies what stands on a bet by a payoff whose mean is at most 1 while the inputs are like the
    calibration rows, whatever came before. Every bet is begun anew with each input, with a share 1 / (1 + ln t) -
    1 / (1 + ln (t + 1)) of the stake at the t-th; these sum to 1, and what is not yet bet counts as it is. So the sum,
    the e-value, is a supermartingale that starts at 1, and it reaches 1 / epsilon with probability at most epsilon in a
    stream of any length (Ville 1939). And it has not spent itself when a drift begins late: after t quiet inputs only
    about ln t + 2 ln ln t of evidence (in nats) has to be made up for.

    State and time an input do not grow with the stream.

    Attributes:
        epsilon: How likely a false alarm may be, ever.
        seen: How many outcomes there were.
        wealth: What stands on each bet.
        largest: The largest e-value so far.
        alarm: How many outcomes there were when the e-value first reached 1 / epsilon; None if it has not.

    Source: Shin, Ramdas and Rinaldo 2023 (e-detectors) for bets that begin at all times; Ville 1939.
    """

    epsilon: float = 0.05
    seen: int = 0
    wealth: tuple[float, ...] = ()
    largest: float = 1.0
    alarm: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no stream can have led to, wherever it was read from."""
        if not self.wealth:
            object.__setattr__(self, "wealth", (0.0,) * len(self.payoffs[0]))
        _check_probability("epsilon", self.epsilon)
        whole = [self.seen, self.seen if self.alarm is None else self.alarm]
        numbers = [self.largest, *self.wealth]
        if not all(type(each) is int and 0 <= each <= self.seen for each in whole):
            raise UncertaintyError(f"Expected counts `seen` and `alarm` <= `seen`, but got {self.seen}, {self.alarm}.")
        if len(self.wealth) != len(self.payoffs[0]) or not all(
            type(each) is float and 0 <= each < math.inf for each in numbers
        ):
            raise UncertaintyError(
                f"Expected `wealth` to be {len(self.payoffs[0])} numbers that are not negative, and `largest` to be "
                f"one, but got {list(self.wealth)[:8]} and {self.largest}."
            )
        if (self.largest >= 1 / self.epsilon) != (self.alarm is not None):
            raise UncertaintyError(
                f"Expected an alarm if and only if the largest e-value is at least 1 / epsilon = {1 / self.epsilon:g}, "
                f"but got {self.largest:g} and alarm = {self.alarm}."
            )

    @property
    @abstractmethod
    def payoffs(self) -> Payoffs:
        """What each bet pays for each outcome; larger outcomes are less strange, and pay less."""

    @abstractmethod
    def outcome(self, value: Any) -> int:
        """Which outcome a flag or p-value is.

        Raises:
            UncertaintyError: If it is neither.
        """

    @property
    def e_value(self) -> float:
        """The evidence now: 1 says nothing, 1 / epsilon raises the alarm."""
        return min(math.fsum(self.wealth) + _unspent(self.seen + 1), MOST)

    def observe(self, values: Iterable[Any]) -> Self:
        """The process after more flags or p-values, in the order in which they came."""
        wealth, seen, largest, alarm = list(self.wealth), self.seen, self.largest, self.alarm
        payoffs, limit = self.payoffs, 1 / self.epsilon
        unspent = _unspent(seen + 1)
        for value in values:
            seen += 1
            after = _unspent(seen + 1)
            stake, unspent = (unspent - after) / len(wealth), after
            paid = payoffs[self.outcome(value)]
            wealth = [min((held + stake) * pays, MOST) for held, pays in zip(wealth, paid, strict=True)]
            now = min(math.fsum(wealth) + unspent, MOST)
            largest = max(largest, now)
            if alarm is None and now >= limit:
                alarm = seen
        return replace(self, seen=seen, wealth=tuple(wealth), largest=largest, alarm=alarm)

    def dump(self) -> dict[str, Any]:
        """All of it as plain data: `load` goes on with the very same numbers."""
        return {"kind": type(self).__name__, **asdict(self), "wealth": list(self.wealth)}


@dataclass(frozen=True)
class FlagEProcess(EProcess):
    """Watches whether more inputs are flagged than was promised.

    With the level of `dubio.uncertainty.detection.conformal` the rate of flags of inputs like the calibration rows is
    at most alpha with confidence 1 - delta, so alpha is what the payoffs take for granted. An alarm is false with
    probability at most epsilon + delta: delta for an unlucky draw of the calibration rows, once and for all.

    Example:
        >>> from dubio.uncertainty import FlagEProcess
        >>> quiet = FlagEProcess(alpha=0.05).observe([False] * 500)
        >>> quiet.alarm is None
        True
        >>> quiet.observe([True, False] * 20).alarm
        517

    Attributes:
        alpha: The promised false-alarm rate.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        _check_probability("alpha", self.alpha)
        super().__post_init__()

    @property
    def payoffs(self) -> Payoffs:
        return _flag_payoffs(self.alpha)

    def outcome(self, value: Any) -> int:
        if bool(value) != value:  # None, where there is no promise, is no "not flagged"
            raise UncertaintyError(f"Expected flags to be true or false, but got {value!r:.80}.")
        return int(value)


@dataclass(frozen=True)
class PValueEProcess(EProcess):
    """Watches whether p-values are smaller than those of inputs like the calibration rows.

    Given the calibration rows, such p-values are independent but not uniform: P(p <= j / (n + 1)) is one draw of
    Beta(j, n + 1 - j), the same for all inputs, and a martingale that takes them for uniform raises false alarms. Here
    they are sorted into groups, about two for each time that the number j doubles. That all bounds of Clopper and
    Pearson on P(p <= the largest of a group) hold has confidence 1 - delta (each has 1 - delta / groups), and while
    they do no decreasing payoff has a larger mean than under the law that the bounds themselves are. So an alarm is
    false with probability at most epsilon + delta. Ties make p-values larger, which is safe.

    Attributes:
        rows: n, how many calibration scores there are.
        delta: Probability, over the draw of the calibration rows, that one of the bounds does not hold.

    Source: Vovk 2012 for the law given the calibration rows; Bates 2023 for bounds that hold for all p-values at once.
    """

    rows: int = 1000
    delta: float = 0.05

    def __post_init__(self) -> None:
        _check_probability("delta", self.delta)
        if type(self.rows) is not int or not 1 <= self.rows <= MAX_ROWS:
            raise UncertaintyError(f"Expected `rows` to be from 1 to {MAX_ROWS} calibration rows, but got {self.rows}.")
        super().__post_init__()

    @property
    def payoffs(self) -> Payoffs:
        return _game(self.rows, self.delta).payoffs

    def outcome(self, value: Any) -> int:
        if value is None or not 0 < value <= 1:
            raise UncertaintyError(f"Expected p-values in (0, 1], but got {value!r:.80}.")
        # A p-value between two counts, such as that of an ensemble, is as large as the larger.
        return bisect_left(_game(self.rows, self.delta).counts, math.ceil(value * (self.rows + 1) - 1e-6))


@dataclass(frozen=True)
class PairedEProcess(EProcess):
    """Watches whether the second of two answers to the same inputs is right about as often as the first.

    Each outcome is the difference of what is right: 1 if the second answer alone is, -1 if the first alone is, else 0.
    As long as the second is right less often by the margin or more, whatever came before, the mean of a difference d is
    at most -margin, and a stake of s pays 1 + s (d + margin), the mean of which is at most 1. So an alarm, which says
    that it is *not* that much worse, is false with probability at most epsilon.

    Example:
        >>> from dubio.uncertainty.detection.martingale import PairedEProcess
        >>> PairedEProcess(margin=0.05).observe([0] * 200).alarm
        98

    Attributes:
        margin: By how much the second answer may be right less often.

    Source: Waudby-Smith and Ramdas 2024 for bets on the mean of bounded outcomes.
    """

    margin: float = 0.05

    def __post_init__(self) -> None:
        _check_probability("margin", self.margin)
        super().__post_init__()

    @property
    def payoffs(self) -> Payoffs:
        return _paired_payoffs(self.margin)

    def outcome(self, value: Any) -> int:
        if value not in (-1, 0, 1):
            raise UncertaintyError(f"Expected differences to be -1, 0 or 1, but got {value!r:.80}.")
        return 1 - int(value)


@dataclass(frozen=True)
class _Game:
    """The groups of p-values: their largest counts j = (n + 1) p, but for the last, which holds n + 1 alone."""

    counts: list[int]
    bounds: list[float]  # of each group, that such a share of the p-values at most is in it or a smaller one
    payoffs: Payoffs


@lru_cache(maxsize=64)
def _game(rows: int, delta: float) -> _Game:
    counts = [1]
    while counts[-1] < rows:
        counts.append(min(rows, max(counts[-1] + 1, round(counts[-1] * math.sqrt(2)))))
    # P(Beta(j, n + 1 - j) > x) = P(Binomial(n, x) <= j - 1): an upper bound of Clopper and Pearson.
    confidence = 1 - 2 * delta / len(counts)
    bounds = [*(clopper_pearson(count - 1, rows, confidence)[1] for count in counts), 1.0]
    payoffs = [
        tuple((high**power - low**power) / (high - low) for power in POWERS) for low, high in pairwise([0.0, *bounds])
    ]
    return _Game(counts, bounds, tuple(payoffs))


@lru_cache(maxsize=64)
def _flag_payoffs(alpha: float) -> Payoffs:
    rates = [factor * alpha / (1 - alpha + factor * alpha) for factor in ODDS]
    return tuple((1 - rate) / (1 - alpha) for rate in rates), tuple(rate / alpha for rate in rates)


@lru_cache(maxsize=64)
def _paired_payoffs(margin: float) -> Payoffs:
    return tuple(tuple(1 + stake * (d + margin) / (1 - margin) for stake in STAKES) for d in (1, 0, -1))


KINDS: dict[str, type[EProcess]] = {kind.__name__: kind for kind in (FlagEProcess, PValueEProcess, PairedEProcess)}


def load(state: Mapping[str, Any]) -> EProcess:
    """Go on with what `EProcess.dump` gave.

    Raises:
        UncertaintyError: If it is no such state.
    """
    kind = KINDS.get(str(state.get("kind")))
    given = {name: value for name, value in state.items() if name != "kind"}
    wealth = given.get("wealth")
    if (
        kind is None
        or given.keys() != {each.name for each in fields(kind)}
        or not (isinstance(wealth, list) and wealth)
    ):
        raise UncertaintyError(f"Expected the state of one of {', '.join(KINDS)}, but got {str(state)[:200]}.")
    return kind(**{**given, "wealth": tuple(wealth)})


def _unspent(seen: int) -> float:
    """The share of the stake that is not bet before so many outcomes."""
    return 1 / (1 + math.log(seen))


def _check_probability(name: str, value: object) -> None:
    if type(value) is not float or not 0 < value < 1:
        raise UncertaintyError(f"Expected `{name}` to be a number in (0, 1), but got {value!r:.80}.")
