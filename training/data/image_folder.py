"""Images of one's own: a folder with a folder of PNG, JPEG and WebP files for each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from dubio.models.errors import InvalidInput
from dubio.models.inputs.image import ImageReader, Picture
from dubio.models.inputs.spec import ImageFiles
from dubio.training import options
from dubio.training.data.file_module import FileDataModule
from dubio.training.errors import DataUnavailable, DataWarning, TrainingError, UnreadableData
from dubio.training.readers import image_files
from dubio.training.readers.image_files import ImageFile
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SPLITS, IntArray, SplitName, split


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
            raise DataUnavailable(f"{self.path}: no such folder; set {options.named('path')} to yours.")
        predicts = self.purpose == "predict"
        listing = image_files.find_all(self.path) if predicts else image_files.find(self.path, self.nested)
        self._say(listing.describe_skipped())
        files = listing.files
        if self.share.count > 1:
            return self._read_share(files)
        pixels = self._pixels(files)
        unlabelled = self.unlabelled(len(files))
        if unlabelled is not None:
            labels, classes = unlabelled
            parts = self.divide(labels, classes)
            ids = {"file": [file.path.relative_to(self.path).as_posix() for file in files]}
            return Dataset.of_numbers(Examples(pixels, labels).divide(parts), classes, parts=parts, ids=ids)
        labels, classes = self.encode_labels(np.array([file.label for file in files]), None, "the folders")
        parts = self.divide(labels, classes, self._own(files, labels, classes))
        splits = Examples(pixels, labels).divide(parts)

        def where(row: int) -> str:
            return str(files[row].path)

        if self.trained is not None:  # the folder may hold no training images now
            return Dataset(splits, classes, self.trained.input, parts=parts, at=where)
        return self._described(Dataset.of_numbers(splits, classes, self.scale, parts=parts, at=where))

    def _read_share(self, files: Sequence[ImageFile]) -> Dataset:
        """The training images of this process alone; those of the others stay on the disk."""
        labels, classes = self.encode_labels(np.array([file.label for file in files]), None, "the folders")
        parts = self.divide(labels, classes, self._own(files, labels, classes))
        read = self.share.parts(parts)
        rows = np.sort(np.concatenate(list(read.values())))
        pixels = self._pixels([files[row] for row in rows])
        splits = Examples(pixels, labels[rows]).divide(
            {name: np.searchsorted(rows, part) for name, part in read.items()}
        )
        shared = Dataset.of_numbers(
            splits,
            classes,
            self.scale,
            parts=parts,
            at=lambda row: str(files[row].path),
            train_labels=labels[parts["train"]],
            partial=True,
        )
        return self._described(shared)

    def _described(self, dataset: Dataset) -> Dataset:
        """With how files became pixels."""
        read_as = ImageFiles(resize=None if self.size is None else "bilinear")
        return replace(dataset, input=dataset.input.model_copy(update={"files": read_as}))

    def reading(self) -> dict[str, Any]:
        size = None if self.size is None else list(self.size)
        return {**super().reading(), "size": size, "channels": self.channels, "nested": self.nested}

    def _reader(self) -> ImageReader:
        """That of the checkpoint that is followed, for files must become the same pixels."""
        spec = None if self.trained is None else self.trained.input
        if spec is None or spec.kind != "image" or spec.files is None:
            return ImageReader(self.channels, self.size, resize=True)
        channels, height, width = spec.shape
        if self.size not in (None, (height, width)):
            raise TrainingError(
                f"Expected `data.init_args.size` to be {[height, width]}, as this checkpoint takes images, but got "
                f"{list(self.size)}; leave it out, or fit again with yours."
            )
        return ImageReader(channels, (height, width), resize=spec.files.resize is not None)

    def _pixels(self, files: Sequence[ImageFile]) -> npt.NDArray[np.uint8]:
        """Pixels `[N, C, H, W]`."""
        reader = self._reader()
        images: list[npt.NDArray[np.uint8]] = []
        stretched = 0
        # Into a log the bar would write nothing but empty lines.
        for file in track(files, "Reading images", transient=True, disable=not Console().is_terminal):
            picture = _read(reader, file)
            images.append(picture.pixels_CHW)
            stretched += _is_stretched(picture)
            if images[-1].shape != images[0].shape:
                raise UnreadableData(
                    f"{file.path}: expected {_extent(images[0])} pixels, as {files[0].path} has, but it has "
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
        if self.trained is not None:  # whose division is kept, and of other rows none is taken for another split
            return own
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


def _read(reader: ImageReader, file: ImageFile) -> Picture:
    try:
        return reader.read(file.path.read_bytes(), str(file.path))
    except (InvalidInput, OSError) as error:
        raise UnreadableData(str(error)) from error


def _is_stretched(picture: Picture) -> bool:
    """Whether a side is more than a pixel off what the other side's factor would make of it."""
    _, height, width = picture.pixels_CHW.shape
    return bool(abs(picture.width * height / picture.height - width) > 1)


def _extent(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
