"""Images of one's own: a folder with a folder of PNG, JPEG and WebP files for each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from dubio.models.errors import InvalidInput
from dubio.models.inputs.image import ImageReader, Picture
from dubio.models.inputs.spec import ImageFiles, InputSpec
from dubio.training.data import image_files
from dubio.training.data.dataset import Dataset, Examples
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.image_files import ImageFile
from dubio.training.data.splits import SPLITS, IntArray, SplitName, split
from dubio.training.errors import DataUnavailable, DataWarning, TrainingError, UnreadableData


class ImageFolder(FileDataModule):
    """Images from `<path>/<class>/*.png`, `.jpg` or `.webp`, or, divided already, `<path>/<split>/<class>/*.png`.

    Folders are splits if all are called train, validation (or val), select, calibration or test; splits that have no
    folder are then taken from train, by the fractions. Pixels go from 0 to 255, and the service reads files the same
    way: turned upright as they say, and brought to the same size.

    Args:
        path: The folder.
        size: Height and width that images are brought to (bilinear with antialiasing, each side by itself, so that
            other aspect ratios are stretched), or one number for both; without it, all must have the same.
        channels: 1 for grey, 3 for colour.
        nested: Whether images in folders inside a class's folder are of that class, too.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        nested: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        self.size = (size, size) if isinstance(size, int) else size
        if self.size is not None and min(self.size) < 1:
            raise TrainingError(f"Expected `data.init_args.size` to be positive, but got {size}.")
        self.channels = channels
        self.nested = nested

    def read(self) -> Dataset:
        if not self.path.is_dir():
            raise DataUnavailable(f"{self.path}: no such folder; set `data.init_args.path` to yours.")
        followed = self.trained
        channels, *size = followed.input.shape if followed else (self.channels, *(self.size or ()))
        resize = self.size is not None if followed is None else _resizes(followed.input)
        reader = ImageReader(channels, (size[0], size[1]) if size else None, resize=resize)
        if self.purpose == "predict":
            return self._unlabelled(reader)
        listing = image_files.find(self.path, self.nested)
        self._say(listing.describe_skipped())
        files = [file.path for file in listing.files]
        labels, classes = self.encode_labels(np.array([file.label for file in listing.files]), None, "the folders")
        parts = self.divide(labels, classes, self._own(listing.files, labels, classes))
        splits = Examples(self._pixels(files, reader), labels).divide(parts)
        return self._described(Dataset.of_numbers(splits, classes, self.scale, parts=parts, at=lambda i: str(files[i])))

    def _unlabelled(self, reader: ImageReader) -> Dataset:
        """All images below the folder, whatever their folders are called."""
        files = sorted(file for file in self.path.rglob("*") if file.suffix.lower() in image_files.SUFFIXES)
        if not files:
            raise UnreadableData(f"{self.path}: expected images in PNG, JPEG or WebP, but there is none.")
        labels, classes = np.zeros(len(files), dtype=np.int64), tuple(self.trained.classes if self.trained else ())
        parts = self.divide(labels, classes)
        splits = Examples(self._pixels(files, reader), labels).divide(parts)
        ids = {"file": [file.relative_to(self.path).as_posix() for file in files]}
        return self._described(Dataset.of_numbers(splits, classes, parts=parts, ids=ids))

    def _described(self, dataset: Dataset) -> Dataset:
        """With how files became pixels, so that the service does the same."""
        files = ImageFiles(resize=None if self.size is None else "bilinear")
        return replace(dataset, input=dataset.input.model_copy(update={"files": files}))

    def _pixels(self, files: Sequence[Path], reader: ImageReader) -> npt.NDArray[np.uint8]:
        """Pixels `[N, C, H, W]`."""
        images: list[npt.NDArray[np.uint8]] = []
        stretched = 0
        # Into a log the bar would write nothing but empty lines.
        for file in track(files, "Reading images", transient=True, disable=not Console().is_terminal):
            picture = _read(reader, file)
            images.append(picture.pixels_CHW)
            stretched += _is_stretched(picture)
            if images[-1].shape != images[0].shape:
                raise UnreadableData(
                    f"{file}: expected {_extent(images[0])} pixels, as {files[0]} has, but it has "
                    f"{_extent(images[-1])}; set `data.init_args.size`."
                )
        if stretched:
            self._say(f"{stretched} of {len(files)} images are stretched: their aspect ratio is not that of `size`")
        return np.stack(images)

    def _own(
        self, files: Sequence[ImageFile], labels_N: IntArray, classes: Sequence[str]
    ) -> npt.NDArray[np.str_] | None:
        """The split of each file, where folders say it; splits without a folder are taken from train."""
        if files[0].split is None:
            return None
        own = np.array([file.split for file in files], dtype=f"U{max(map(len, SPLITS))}")
        absent: list[SplitName] = [name for name in SPLITS if name not in own]
        if "train" in absent:
            raise UnreadableData(f"{self.path}: expected a folder for the train split, but there is none; make one.")
        if absent:
            rows = np.flatnonzero(own == "train")
            shares = np.array([getattr(self.fractions, name) for name in ("train", *absent)])
            edges = np.rint(np.cumsum(shares) / shares.sum() * len(rows)).astype(int)
            sizes = dict(zip(("train", *absent), np.diff(edges, prepend=0).tolist(), strict=True))
            for name, part in split(labels_N[rows], sizes, self.seed, classes).items():
                own[rows[part]] = name
            taken = ", ".join(f"{name} ({sizes[name]})" for name in absent)
            self._say(f"splits without a folder are taken from the {len(rows)} images in train: {taken}")
        return own

    def _say(self, fact: str | None) -> None:
        if fact is not None:
            warnings.warn(f"{self.path}: {fact}.", DataWarning, stacklevel=2)


def _resizes(spec: InputSpec) -> bool:
    """Whether files of any size were brought to that of the inputs."""
    return spec.files is not None and spec.files.resize is not None


def _read(reader: ImageReader, file: Path) -> Picture:
    try:
        return reader.read(file.read_bytes(), str(file))
    except (InvalidInput, OSError) as error:
        raise UnreadableData(str(error)) from error


def _is_stretched(picture: Picture) -> bool:
    """Whether a side is more than a pixel off what the other side's factor would make of it."""
    _, height, width = picture.pixels_CHW.shape
    return bool(abs(picture.width * height / picture.height - width) > 1)


def _extent(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
