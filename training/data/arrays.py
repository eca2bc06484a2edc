"""Arrays of one's own: an .npz file with inputs `x` and labels `y`."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from dubio.training.data import identifiers
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.module import Parts
from dubio.training.errors import TrainingError, UnreadableData
from dubio.training.readers import npz_rows
from dubio.training.readers.precision import is_lost
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import IntArray

Found = TypeVar("Found")
CHANNELS = 4  # the most that an image usually has


class Arrays(FileDataModule):
    """Images or rows of numbers from an .npz file, as `numpy.savez` writes it.

    The file holds `x` and `y`, and may hold `classes` (names in the order of the labels) and `split` (the name of the
    split of each row; the fractions are then not used). The number of axes of `x` says what one input is: `[N, F]`
    rows of F numbers, `[N, H, W]` grey images, `[N, C, H, W]` images. `y` holds integers from 0, or names.

    Args:
        path: The .npz file.
        classes: Names of the classes in the order of the labels; by default those in the file, else the labels.
        channels: Where the channels of images are: `first`, `[N, C, H, W]`, or `last`, `[N, H, W, C]`.
    """

    def __init__(
        self,
        path: str,
        classes: tuple[str, ...] | None = None,
        channels: Literal["first", "last"] = "first",
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        self.class_names = classes
        self.channels = channels

    def read(self) -> Dataset:
        if self.share.count > 1:
            return self._read_share()
        arrays = self._arrays("x")
        x = self._require(arrays, "x")
        for name in self.ids:
            if len(self._require(arrays, name)) != len(x):
                raise UnreadableData(f"{self.path}: expected `{name}` to have one value for each of {len(x)} rows.")
        ids = {name: arrays[name].tolist() for name in self.ids}
        unlabelled = self.unlabelled(len(x))
        if unlabelled is not None:
            labels, classes = unlabelled
            parts = self.divide(labels, classes)
            return Dataset.of_numbers(Examples(self._inputs(x), labels).divide(parts), classes, parts=parts, ids=ids)
        y = self._labels(arrays, len(x))
        x = self._inputs(x)
        labels, classes, parts = self._divided(arrays, y)
        doubts = self._doubts(x) if self.trained is None else ()
        return Dataset.of_numbers(Examples(x, labels).divide(parts), classes, self.scale, parts=parts, doubts=doubts)

    def _read_share(self) -> Dataset:
        """The training rows of this process alone; those of the others are passed over in the file."""
        arrays = self._arrays()
        rows_N = np.arange(self._stored(lambda: npz_rows.shape_of(self.path, "x"))[0])
        labels, classes, parts = self._divided(arrays, self._labels(arrays, len(rows_N)))
        read = self.share.parts(parts)
        rows = np.sort(np.concatenate(list(read.values())))
        x = self._inputs(self._stored(lambda: npz_rows.read_rows(self.path, "x", rows)), rows)
        splits = Examples(x, labels[rows]).divide({name: np.searchsorted(rows, part) for name, part in read.items()})
        return Dataset.of_numbers(
            splits,
            classes,
            self.scale,
            parts=parts,
            doubts=self._doubts(x),
            train_labels=labels[parts["train"]],
            partial=True,
        )

    def _labels(self, arrays: dict[str, npt.NDArray[Any]], rows: int) -> npt.NDArray[Any]:
        y = self._require(arrays, "y")
        if y.ndim != 1 or rows != len(y):
            raise UnreadableData(
                f"{self.path}: expected `y` to have one label for each of the {rows} rows of `x`, but got shape "
                f"{list(y.shape)}."
            )
        return y

    def _divided(
        self, arrays: dict[str, npt.NDArray[Any]], y: npt.NDArray[Any]
    ) -> tuple[IntArray, tuple[str, ...], Parts]:
        """Class of each row, the names of the classes, and row numbers a split."""
        names = self.class_names
        if names is None and "classes" in arrays:
            names = tuple(map(str, arrays["classes"].ravel().tolist()))
        labels, classes = self.encode_labels(y, names, "`y`")
        own = arrays.get("split")
        if own is not None and own.shape != y.shape:
            raise UnreadableData(
                f"{self.path}: expected `split` to name the split of each of {len(y)} rows, but got shape "
                f"{list(own.shape)}."
            )
        return labels, classes, self.divide(labels, classes, own)

    def _doubts(self, x: npt.NDArray[Any]) -> list[str]:
        """Columns that number the rows."""
        columns = range(x.shape[1]) if x.ndim == 2 else ()
        told = {index: identifiers.numbers(pl.Series(x[:, index]))[0] for index in columns}
        return [
            f"{self.path}: column {index} of `x` holds {facts}; leave it out, in requests too."
            for index, facts in told.items()
            if facts is not None
        ]

    def reading(self) -> dict[str, Any]:
        return {**super().reading(), "channels": self.channels}

    def _arrays(self, *inputs: str) -> dict[str, npt.NDArray[Any]]:
        return self._stored(lambda: self._load(*inputs))

    def _load(self, *inputs: str) -> dict[str, npt.NDArray[Any]]:
        # Never with pickles, which could run code.
        # Opened here, for numpy leaves a file open that turns out to be damaged.
        with self.file().open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise UnreadableData(f"{self.path}: holds one array, but two are needed; numpy.savez(path, x=x, y=y).")
            wanted = (*inputs, "y", "classes", "split", *self.ids)
            return {name: content[name] for name in wanted if name in content}

    def _stored(self, read: Callable[[], Found]) -> Found:
        """What is read from the file, whose faults are told."""
        try:
            return read()
        except TrainingError:
            raise
        except KeyError as error:
            raise UnreadableData(f"{self.path}: expected an array `x`, but it is missing.") from error
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            cause = "it holds Python objects" if "pickle" in str(error) else str(error)
            raise UnreadableData(
                f"{self.path}: expected an .npz file of plain arrays, but {cause}; numpy.savez(path, x=x, y=y)."
            ) from error

    def _require(self, arrays: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
        if name not in arrays:
            raise UnreadableData(
                f"{self.path}: expected an array `{name}`, but it is missing; it holds {list(arrays)}."
            )
        if not arrays[name].ndim or not len(arrays[name]):
            raise UnreadableData(f"{self.path}: expected rows in `{name}`, but it is empty.")
        return arrays[name]

    def _inputs(self, x: npt.NDArray[Any], rows: IntArray | None = None) -> npt.NDArray[Any]:
        """Numbers `[N, F]` or images `[N, C, H, W]`, all of them finite; `rows` are their numbers in the file."""
        if x.dtype.kind not in "fiu":
            raise UnreadableData(f"{self.path}: expected numbers in `x`, but got {x.dtype}; convert them.")
        if x.ndim not in (2, 3, 4) or 0 in x.shape:
            raise UnreadableData(
                f"{self.path}: expected `x` to be [N, F] numbers, [N, H, W] grey images or [N, C, H, W] images, but "
                f"got shape {list(x.shape)}."
            )
        if x.ndim == 3:
            x = x[:, np.newaxis]
        elif x.ndim == 4 and self.channels == "last":
            x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
        elif x.ndim == 4 and x.shape[1] > CHANNELS >= x.shape[3]:
            raise UnreadableData(
                f"{self.path}: expected images [N, C, H, W], but `x` has shape {list(x.shape)}, so the channels seem "
                "to be last; set `data.init_args.channels: last`."
            )
        given = x
        if x.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what float32 cannot hold is not finite there, and named below
                x = x.astype(np.float32)
            for row in np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[:1]:
                at = np.argwhere(~np.isfinite(x[row]))[0].tolist()
                raise UnreadableData(
                    f"{self.path}: expected finite numbers in `x`, but row {row if rows is None else rows[row]} holds "
                    f"{x[row][tuple(at)]} at {at}; leave the row out, or fill in what is missing."
                )
        for index in range(x.shape[1]):
            if is_lost(given[:, index]):
                column, what = given[:, index], "column" if x.ndim == 2 else "channel"
                raise UnreadableData(
                    f"{self.path}: expected numbers in `x` that 32 bits can tell apart, but {what} {index} lies from "
                    f"{column.min()} to {column.max()}; subtract a number near them, in the file and in requests, or "
                    "use dubio.training.Table, which does so by itself."
                )
        return x
