"""Which rows a checkpoint was trained on, and what that allows with the rows of a source.

Rows are known by digests of their inputs. There are two cases.

- The source holds the rows of the fit in their order: the division of the fit holds, row by row. Equal rows may be on
  both sides of it, as the fit divided them.
- It is another source: all of its rows are for what was asked, and none may have been trained on. In tables of few
  categories new rows naturally equal old ones; how often is seen in the fit itself, among the rows that it held out. A
  source is refused if more of its rows equal training rows than that explains.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from dubio.models.checkpoint.data_record import DataRecord, Division
from dubio.training.errors import DataWarning, InvalidSplit
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SPLITS, IntArray, SplitName

Purpose = Literal["validate", "test", "calibrate", "predict"]

# The splits whose rows a purpose measures or fits on.
MEASURED: dict[Purpose, tuple[SplitName, ...]] = {
    "validate": ("validation",),
    "test": ("test",),
    "calibrate": ("validation", "select", "calibration", "test"),
    "predict": (),
}
# The splits whose rows a purpose must not see: a test on the rows that set the flag's level would confirm itself.
USED: dict[Purpose, tuple[SplitName, ...]] = {
    "validate": ("train",),
    "test": ("train", "validation", "select", "calibration"),
    "calibrate": ("train",),
    "predict": (),
}
# The settings by which the rows of the fit were divided; those of another source may be divided otherwise.
DIVIDING = ("seed", "duplicates", "split", "group", "time", *SPLITS)
OPTIONAL = [("calibrate", "validation")]  # of MEASURED, what may have no rows: rates are tuned on them, if at all
# How unlikely equal rows have to be, where the held-out rows of the fit had some, before a source is refused.
SIGNIFICANCE = 1e-3
SHOWN = 10  # places that a message names, of rows that follow each other the first and the last


def digests(x: npt.NDArray[np.generic]) -> IntArray:
    """A number for each row of inputs, equal for equal inputs of any number type, `[N]`.

    Source:
        BLAKE2 (RFC 7693), of 64 bits: among a million rows and a million others two differing ones share a digest with
        a probability of 1 in 18 million.
    """
    found = np.empty(len(x), dtype=np.int64)
    for row, values in enumerate(x):
        # float64 holds every value of the smaller types; adding zero turns -0.0 into 0.0.
        content = np.ascontiguousarray(values, dtype="<f8") + 0.0
        found[row] = int.from_bytes(hashlib.blake2b(content.tobytes(), digest_size=8).digest(), "little", signed=True)
    return found


def describe_division(
    dataset: Dataset, title: str, settings: Mapping[str, Any], known: Mapping[SplitName, IntArray] | None = None
) -> Division:
    """How a data set is divided, for the checkpoint.

    Args:
        dataset: The data set.
        title: Names the source.
        settings: Of the data module.
        known: Digests of the rows of a split that are not all here.
    """
    known = known or {}
    found = {name: known[name] if name in known else digests(each.x) for name, each in dataset.splits.items()}
    return Division(
        data=title,
        settings=dict(settings),
        rows={name: torch.from_numpy(dataset.rows[name].astype(np.int64)) for name in dataset.splits},
        digests={name: torch.from_numpy(digests_N) for name, digests_N in found.items()},
    )


def same_division(one: Division, other: Division) -> bool:
    """Whether the same rows were divided in the same way."""
    return all(
        torch.equal(*(each.digests.get(name, torch.empty(0, dtype=torch.int64)) for each in (one, other)))
        for name in {*one.digests, *other.digests}
    )


def as_trained(
    dataset: Dataset,
    trained: DataRecord,
    purpose: Purpose,
    title: str,
    settings: Mapping[str, Any],
    own: Mapping[SplitName, IntArray] | None,
    new: Callable[[], Mapping[SplitName, IntArray]],
) -> Dataset:
    """The data set, each row in the split that it may be used in.

    Args:
        dataset: All rows of the source in one split, encoded as the checkpoint says.
        trained: Of the checkpoint.
        purpose: What the rows are for.
        title: Names the source in messages.
        settings: Of the data module.
        own: Row numbers a split, if the source says itself which split each row belongs to.
        new: Gives row numbers a split, if the source is not that of the fit.

    Raises:
        InvalidSplit: If a setting, or the source itself, asks for another division of the rows of the fit, or rows of
            another source were trained on.
    """
    whole = dataset.whole()
    digests_N = digests(whole.x)
    for division in reversed(trained.divisions):
        if _holds(division, digests_N):
            _refuse_settings(division, title, settings)
            _refuse_moved(division, dataset, own, title)
            return _divided(dataset, whole, {name: rows.numpy() for name, rows in division.rows.items()})
    parts = {name: rows for name, rows in new().items() if name in MEASURED[purpose]}
    for name in MEASURED[purpose]:
        if not len(parts.get(name, ())) and (purpose, name) not in OPTIONAL:
            raise InvalidSplit(f"{title}: expected rows in the {name} split, but there are none; say which they are.")
    _refuse_trained(dataset, trained, purpose, digests_N, np.sort(np.concatenate(list(parts.values()))), title)
    return _divided(dataset, whole, parts)


def splits_of(dataset: Dataset, trained: DataRecord | None) -> list[str | None]:
    """The split that each row was in at the fit; of another source, that of an equal row, if there was one."""
    digests_N = digests(dataset.whole().x)
    splits_N = np.full(len(digests_N), None, dtype=object)
    divisions = list(trained.divisions) if trained else []
    held = [division for division in divisions if _holds(division, digests_N)]
    for division in held:
        for name, rows in division.rows.items():
            splits_N[rows.numpy()] = name
    if not held:
        for name, equal_N in _equal(divisions, SPLITS, digests_N).items():
            splits_N[equal_N] = name
    return list(splits_N)


def _equal(
    divisions: Sequence[Division], names: Sequence[SplitName], digests_N: IntArray
) -> dict[SplitName, npt.NDArray[np.bool_]]:
    """Which rows equal one of each split; those of several splits count for the first of them."""
    equal, left_N = {}, np.ones(len(digests_N), dtype=np.bool_)
    for name in (name for name in SPLITS if name in names):
        known = [division.digests[name].numpy() for division in divisions if name in division.digests]
        equal[name] = left_N & np.isin(digests_N, np.concatenate(known) if known else [])
        left_N &= ~equal[name]
    return equal


def _holds(division: Division, digests_N: IntArray) -> bool:
    """Whether these are the rows that were divided, in their order, and none but duplicates that the fit dropped."""
    rows, known = (torch.cat(list(parts.values())).numpy() for parts in (division.rows, division.digests))
    if len(rows) > len(digests_N) or not np.array_equal(digests_N[rows.clip(max=len(digests_N) - 1)], known):
        return False
    left = np.delete(digests_N, rows)
    return not len(left) or (division.settings.get("duplicates") == "drop" and bool(np.isin(left, known).all()))


def _divided(dataset: Dataset, whole: Examples, parts: Mapping[Any, IntArray]) -> Dataset:
    rows = {name: np.asarray(parts.get(name, []), dtype=np.int64) for name in SPLITS}
    return replace(dataset, splits=whole.divide(rows), parts=rows)


def _refuse_settings(division: Division, title: str, settings: Mapping[str, Any]) -> None:
    for name in DIVIDING:
        given, used = settings.get(name), division.settings.get(name)
        # A column that names splits is compared with them row by row.
        if name != "split" and {name} <= settings.keys() & division.settings.keys() and given != used:
            raise InvalidSplit(
                f"{title}: expected `data.init_args.{name}` to be {used}, by which the rows of this checkpoint were "
                f"divided, but got {given}: another division would take rows that were trained on for held-out ones. "
                "Leave it as it was; or fit again with yours; or give other rows (`--data.path`)."
            )


def _refuse_moved(division: Division, dataset: Dataset, own: Mapping[SplitName, IntArray] | None, title: str) -> None:
    moved: dict[SplitName, IntArray] = {
        name: np.setdiff1d(rows, division.rows.get(name, torch.empty(0)).numpy())
        for name, rows in (own or {}).items()
        if name != "train"  # nothing is trained now, and splits without a folder of their own were taken from it
    }
    rows = np.sort(np.concatenate(list(moved.values()))) if moved else np.empty(0, dtype=np.int64)
    if len(rows):
        raise InvalidSplit(
            f"{title}: expected every row in the split that it was in at the fit, but {len(rows)} rows are said to be "
            f"elsewhere ({_counts(moved)}): {_places(dataset, rows)}. Say there what was so; or fit again."
        )


def _refuse_trained(
    dataset: Dataset, trained: DataRecord, purpose: Purpose, digests_N: IntArray, rows: IntArray, title: str
) -> None:
    used, digests_M = USED[purpose], digests_N[rows]
    equal = _equal(trained.divisions, used, digests_M)
    count = int(sum(equal_M.sum() for equal_M in equal.values()))
    if not count:
        return
    free = np.concatenate(
        [each.numpy() for division in trained.divisions for name, each in division.digests.items() if name not in used]
    )
    natural = int(sum(each.sum() for each in _equal(trained.divisions, used, free).values()))
    share = f"{count} of {len(rows)} ({count / len(rows):.1%}) equal rows that were used before ({_counts(equal)})"
    usual = f"of the rows that were held out, {natural / max(len(free), 1):.1%} do"
    if natural and _tail(count, len(rows), natural, len(free)) > SIGNIFICANCE:
        warnings.warn(f"{title}: {share}, which is natural here: {usual}.", DataWarning, stacklevel=2)
        return
    places = _places(dataset, rows[np.logical_or.reduce(list(equal.values()))])
    raise InvalidSplit(
        f"{title}: expected rows that this checkpoint has not seen, but {share}"
        f"{f', and {usual}' if natural else ''}: {places}. Leave them out (`dubio-train predict` lists all, in its "
        "column `split`), or give the source of the fit as it was, whose division is kept."
    )


def _counts(parts: Mapping[SplitName, IntArray | npt.NDArray[np.bool_]]) -> str:
    """How many rows each split has: `train 70, test 3`; of masks, how many are chosen."""
    counts = {name: int(part.sum()) if part.dtype == np.bool_ else len(part) for name, part in parts.items()}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _places(dataset: Dataset, rows: IntArray) -> str:
    """Where rows are, by number: `line 2 to 85, line 90`; of many places the first ones."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    shown = []
    for run in runs[:SHOWN]:
        first, last = dataset.at(int(run[0])), dataset.at(int(run[-1]))
        kind = first.partition(" ")[0] + " "
        shown.append(first if len(run) == 1 else f"{first} to {last.removeprefix(kind)}")
    left = sum(map(len, runs[SHOWN:]))
    return ", ".join(shown) + (f" and {left} more" if left else "")


def _tail(count: int, rows: int, natural: int, free: int) -> float:
    """How likely at least `count` of the `rows` new rows are among those that equal seen ones, if new and free rows are
    alike: `natural` of the `free` rows do.

    Source:
        Fisher's exact test, one-sided: the hypergeometric tail.
    """

    def choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    both, equal = rows + free, count + natural
    return sum(
        math.exp(choose(equal, k) + choose(both - equal, rows - k) - choose(both, rows))
        for k in range(count, min(equal, rows) + 1)
    )
