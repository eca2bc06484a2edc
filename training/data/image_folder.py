"""Images of one's own: a folder with a folder of PNG and JPEG files for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from dubio.training.data.dataset import Dataset, Examples
from dubio.training.data.file_module import FileDataModule
from dubio.training.data.splits import SPLITS
from dubio.training.errors import DataUnavailable, TrainingError, UnreadableData

SUFFIXES = {".png", ".jpg", ".jpeg"}
# At most eight bits a channel, and none of them inverted.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


class ImageFolder(FileDataModule):
    """Images from `<path>/<class>/*.png` or `.jpg`, or, divided already, `<path>/<split>/<class>/*.png`.

    Splits are called train, validation, select, calibration and test; with them, the fractions are not used. Pixels go
    from 0 to 255, so that the service takes files as well as numbers.

    Args:
        path: The folder.
        size: Height and width that images are brought to (bilinear, with antialiasing), or one number for both;
            without it, all must have the same.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        **settings: Any,
    ) -> None:
        super().__init__(path, **settings)
        self.size = (size, size) if isinstance(size, int) else size
        if self.size is not None and min(self.size) < 1:
            raise TrainingError(f"Expected `data.init_args.size` to be positive, but got {size}.")
        self.channels = channels

    def read(self) -> Dataset:
        if not self.path.is_dir():
            raise DataUnavailable(f"{self.path}: no such folder; set `data.init_args.path` to yours.")
        folders = _folders(self.path)
        if self.purpose == "predict":
            return self._unlabelled()
        divided = bool(folders) and {folder.name for folder in folders} <= set(SPLITS)
        class_folders = [(split.name, folder) for split in folders for folder in _folders(split)] if divided else []
        files = [
            (own, folder.name, file)
            for own, folder in (class_folders or [("", folder) for folder in folders])
            for file in self._files(folder)
        ]
        images = self._images([file for *_, file in files])
        labels, classes = self.encode_labels(np.array([name for _, name, _ in files]), None, "the folders")
        own = np.array([own for own, _, _ in files]) if divided else None
        parts = self.divide(labels, classes, own)
        splits = Examples(images, labels).divide(parts)
        return Dataset.of_numbers(splits, classes, self.scale, parts=parts, at=lambda row: str(files[row][2]))

    def _unlabelled(self) -> Dataset:
        """All images below the folder, whatever their folders are called."""
        files = sorted(file for file in self.path.rglob("*") if file.suffix.lower() in SUFFIXES)
        images = self._images(files)
        labels, classes = np.zeros(len(files), dtype=np.int64), tuple(self.trained.classes if self.trained else ())
        parts = self.divide(labels, classes)
        ids = {"file": [file.relative_to(self.path).as_posix() for file in files]}
        return Dataset.of_numbers(Examples(images, labels).divide(parts), classes, parts=parts, ids=ids)

    def _images(self, files: list[Path]) -> npt.NDArray[np.uint8]:
        """Pixels `[N, C, H, W]`, of files that all have the same size."""
        if not files:
            raise UnreadableData(
                f"{self.path}: expected a folder for each class, with .png, .jpg or .jpeg files, but there is none."
            )
        # Into a log the bar would write nothing but empty lines.
        shown = track(files, "Reading images", transient=True, disable=not Console().is_terminal)
        images = [self._image(file) for file in shown]
        for image, file in zip(images, files, strict=True):
            if image.shape != images[0].shape:
                raise UnreadableData(
                    f"{file}: expected {_extent(images[0])} pixels, as {files[0]} has, but it has {_extent(image)}; "
                    "set `data.init_args.size`."
                )
        return np.stack(images)

    def _files(self, folder: Path) -> list[Path]:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UnreadableData(
                f"{folder}: expected .png, .jpg or .jpeg files of class {folder.name!r}, but there is none; add some, "
                "or remove the folder."
            )
        return files

    def _image(self, file: Path) -> npt.NDArray[np.uint8]:
        """Pixels `[C, H, W]`."""
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if image.mode not in _MODES:
                    raise UnreadableData(
                        f"{file}: expected at most 8 bits a channel, in grey or RGB, but its mode is {image.mode}; "
                        "convert it."
                    )
                if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                    raise UnreadableData(
                        f"{file}: expected no transparent pixels, but it has some; put it on a background."
                    )
                converted = image.convert("L" if self.channels == 1 else "RGB")
        except UnreadableData:
            raise
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            cause = str(error).split("\n")[0][:100]
            raise UnreadableData(f"{file}: expected a PNG or JPEG file, but it cannot be read: {cause}.") from error
        if self.size is not None:
            height, width = self.size
            converted = converted.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(converted)
        return pixels[np.newaxis] if self.channels == 1 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _extent(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
