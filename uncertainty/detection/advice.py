"""Advice where calibration rows do not carry a promised risk: which one they carry, and how many rows it would take."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from dubio.uncertainty.detection.answers import LabelledAnswers
from dubio.uncertainty.detection.conformal import Calibration
from dubio.uncertainty.detection.selective import AcceptanceTests, power

# Numbers of two digits, from .0010 to .99.
RISKS = sorted({digits / 10**places for places in (2, 3, 4) for digits in range(10, 100)})
LIKELY = 0.8  # how probably the rows that are advised suffice
WORTH = 0.1  # the share of rows that is to be accepted at least: no error in a handful says little
GROWTH = 1.05  # from one number of rows that is tried to the next
MOST_ROWS = 2**20  # more are not advised
TRIED = 10  # thresholds that are looked at for the number of rows, about


def attainable_risk(tests: AcceptanceTests, rows: LabelledAnswers, flag: Calibration) -> float:
    """The smallest of `RISKS`, above that of the tests, that these rows carry; 1 if they carry none.

    The whole procedure is run for each, as another risk may be tested at another threshold first. It is found on the
    calibration rows themselves, so it is one that was not promised beforehand.

    Args:
        tests: Which these rows do not pass.
        rows: The calibration split.
        flag: Its calibration.
    """
    _, accepted_T, wrong_T = tests.count(rows, flag)
    counts = list(zip(wrong_T.tolist(), accepted_T.tolist(), strict=True))

    def some_pass(risk: float) -> bool:
        return any(replace(tests, risk=risk).passes(*count) for count in counts)

    above = [risk for risk in RISKS if risk > tests.risk]
    for risk in above[bisect_left(above, True, key=some_pass) :]:
        again = tests.at(risk)
        if again.passes(*counts[again.first]):
            return risk
    return 1.0


def rows_due(tests: AcceptanceTests, rows: LabelledAnswers, flag: Calibration) -> int:
    """How many calibration rows suffice with the probability `LIKELY`, if rows are accepted and wrong as often as here.

    Args:
        tests: Which these rows do not pass.
        rows: The calibration split.
        flag: Its calibration.

    Returns:
        At most `MOST_ROWS`; 0 if so many are too few.
    """
    _, accepted_T, wrong_T = tests.count(rows, flag)
    counts = zip(wrong_T.tolist(), accepted_T.tolist(), strict=True)
    # Where these rows would pass another threshold was tested first: of many some do by chance.
    hopeful = [
        (accepted / len(rows), wrong / accepted)
        for wrong, accepted in counts
        if accepted >= WORTH * len(rows) and wrong < tests.risk * accepted and not tests.passes(wrong, accepted)
    ]
    numbers = _growing(len(rows))

    def suffice(number: int) -> bool:
        chosen = hopeful[:: -max(1, len(hopeful) // TRIED)]
        return any(power(round(share * number), error, tests.risk, tests.delta) >= LIKELY for share, error in chosen)

    found = bisect_left(numbers, True, key=suffice)
    return numbers[found] if found < len(numbers) else 0


def _growing(rows: int) -> Sequence[int]:
    """Larger numbers, up to `MOST_ROWS`."""
    numbers = [rows + 1]
    while numbers[-1] < MOST_ROWS:
        numbers.append(int(GROWTH * numbers[-1]) + 1)
    return numbers
