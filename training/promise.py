"""What the rows of a data set can promise, before any is spent on training."""

from __future__ import annotations

import io
import math
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from dubio.training.data.file_module import FileDataModule
from dubio.training.data.module import FractionDataModule, TensorDataModule
from dubio.training.splits.division import MEASURED
from dubio.training.splits.random_splits import SPLITS, SplitFractions
from dubio.uncertainty.detection.conformal import level, rows_needed, smallest_alpha
from dubio.uncertainty.errors import CalibrationSetTooSmall

SHARES = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5)  # of all rows, for calibration
LEAST_TRAIN = 0.2
WIDTH = 100


def require(data: TensorDataModule, alpha: float, delta: float) -> None:
    """Refuses a promise that the calibration rows cannot carry, and says what they can.

    Raises:
        CalibrationSetTooSmall: If there are too few; its note is a table of what is possible.
        UncertaintyError: If alpha or delta is not in (0, 1).
    """
    try:
        level(len(data.splits["calibration"].labels), alpha, delta)
    except CalibrationSetTooSmall as error:
        if data.trained is not None:  # what is held out is all there is: rows of train are no rows to calibrate on
            raise CalibrationSetTooSmall(
                f"{error} The rows that the network was trained on cannot be used: fit again with a larger "
                "`data.init_args.calibration`, or calibrate on a labelled file of at least "
                f"{_held_out(data, rows_needed(alpha, delta))} new rows (`--data.path`)."
            ) from error
        written = io.StringIO()
        Console(file=written, width=WIDTH).print(table(data, alpha, delta), end="")
        error.add_note(written.getvalue() + _advice(data, alpha, delta))
        raise


def more_rows(data: TensorDataModule, due: int) -> str:
    """How to come to so many calibration rows.

    Args:
        data: Has fewer.
        due: How many there should be.
    """
    train, given = len(data.load().labels("train")), data.settings().get("calibration")
    if isinstance(data, FractionDataModule) and _divided(data) and train:
        share = math.ceil(100 * due / _total(data)) / 100
        left = round(data.fractions.train + data.fractions.calibration - share, 6)
        if left >= LEAST_TRAIN:
            return f"train anew with `--data.calibration {share:g} --data.train {left:g}`"
    elif isinstance(given, int) and due - given < train / 2:
        return f"train anew with `--data.calibration {due}`"
    if isinstance(data, FileDataModule):
        return f"calibrate on a labelled file of at least {_held_out(data, due)} new rows (`--data.path`)"
    return "collect more rows"


def promised(rows: int, delta: float) -> float:
    """The smallest false-alarm rate that so many calibration rows can promise, rounded up to three decimals."""
    return math.ceil(smallest_alpha(rows, delta) * 1000) / 1000


def table(data: TensorDataModule, alpha: float, delta: float) -> Table:
    """The smallest alpha by share of rows that calibrate: as it is, and taken from the training rows."""
    total = _total(data)
    lines = Table(
        title=f"what {total} rows can promise, with confidence {1 - delta:.0%}", title_justify="left", min_width=60
    )
    for name in ("data.calibration", "data.train", "calibration rows", "smallest alpha"):
        lines.add_column(name, justify="right")
    now = len(data.splits["calibration"].labels)
    train = len(data.load().labels("train"))
    lines.add_row(f"{now / total:.2f} (now)", f"{train / total:.2f} (now)", str(now), f"{promised(now, delta):g}")
    for fractions, rows in _larger(data, alpha, delta):
        lines.add_row(f"{fractions.calibration:g}", f"{fractions.train:g}", str(rows), f"{promised(rows, delta):g}")
    return lines


def _advice(data: TensorDataModule, alpha: float, delta: float) -> str:
    now, needed = len(data.splits["calibration"].labels), rows_needed(alpha, delta)
    cures = [f"set `--calibration.alpha {promised(now, delta):g}`"]
    enough = [fractions for fractions, rows in _larger(data, alpha, delta) if rows >= needed]
    if enough:
        cures.append(f"train anew with `--data.calibration {enough[0].calibration:g} --data.train {enough[0].train:g}`")
    elif needed < math.inf:
        cures.append(f"collect more rows: alpha {alpha:g} needs {needed} for calibration alone")
    return ", or ".join(cures)


def _larger(data: TensorDataModule, alpha: float, delta: float) -> list[tuple[SplitFractions, int]]:
    """Larger shares for calibration and their rows; none where the rows say their split, or little is left to train."""
    if not isinstance(data, FractionDataModule) or not _divided(data):
        return []
    total, now, given = _total(data), len(data.splits["calibration"].labels), data.fractions
    due = math.ceil(100 * min(rows_needed(alpha, delta) / total, 1)) / 100
    both = given.train + given.calibration
    # Rounding may leave `due` a row short; the share behind it does not.
    shares = sorted(share for share in {*SHARES, due, round(due + 0.01, 2)} if both - share >= LEAST_TRAIN)
    larger = [replace(given, calibration=share, train=round(both - share, 6)) for share in shares]
    counted = [(fractions, fractions.counts(total)["calibration"]) for fractions in larger]
    return [(fractions, rows) for fractions, rows in counted if rows > now]


def _divided(data: FractionDataModule) -> bool:
    """Whether the rows were divided by fractions; some say their split themselves."""
    now = len(data.splits["calibration"].labels)
    return abs(now - data.fractions.calibration * _total(data)) <= 1 + 0.2 * now


def _held_out(data: TensorDataModule, due: float) -> int:
    """How many new rows it takes, so that so many of them calibrate."""
    rows = max(len(data.splits["calibration"].labels), 1)
    return math.ceil(due * sum(len(data.splits[name].labels) for name in MEASURED["calibrate"]) / rows)


def _total(data: TensorDataModule) -> int:
    return sum(len(data.load().labels(name)) for name in SPLITS)
