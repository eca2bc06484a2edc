"""A folder of images: which of its files are read, of which class and split they are, and what is left aside."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dubio.models.inputs.image import OTHER_SUFFIXES, is_image
from dubio.training.errors import UnreadableData
from dubio.training.splits.random_splits import SplitName

# What splits are called elsewhere.
_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "select": "select", "calibration": "calibration",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class ImageFile:
    """One image.

    Attributes:
        path: The file.
        label: Name of its class.
        split: That its folder names; None without folders for splits.
    """

    path: Path
    label: str
    split: SplitName | None


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        files: That are read, in the order of their paths, classes one after the other.
        others: Images of formats that are not read.
        skipped: How many files are no images, or no class's, by what they are.
    """

    files: list[ImageFile] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def describe_skipped(self) -> str | None:
        """How many files are left aside, in a sentence; None if all are read."""
        count = self.skipped.total()
        return f"{count} {'file is' if count == 1 else 'files are'} not used: {_count(self.skipped)}" if count else None


def find(path: Path, nested: bool) -> Listing:
    """The images in `<path>/<class>`, or in `<path>/<split>/<class>` if every folder is called like a split.

    Args:
        path: The folder.
        nested: Whether images in folders inside a class's folder are of that class, too.

    Raises:
        UnreadableData: If the folders are neither classes nor splits, a class has no images, images lie deeper than
            they may, or are of a format that is not read.
    """
    listing = Listing()
    for split, home in _homes(path, listing):
        for folder in _folders(home, listing):
            images = _images(folder, nested, listing)
            if not images and not listing.others:
                raise UnreadableData(
                    f"{folder}: expected images of class {folder.name!r}, but there is none in PNG, JPEG or WebP; add "
                    "some, or remove the folder."
                )
            listing.files += [ImageFile(image, folder.name, split) for image in images]
    _check(path, listing)
    return listing


def find_all(path: Path) -> Listing:
    """The images in a folder and in all folders inside it, whatever these are called.

    Args:
        path: The folder.

    Raises:
        UnreadableData: If there is none, or one of a format that is not read.
    """
    listing = Listing()
    listing.files = [ImageFile(image, "", None) for image in sorted(_images(path, True, listing))]
    _check(path, listing)
    return listing


def _check(path: Path, listing: Listing) -> None:
    """Refuse images of other formats, or none at all."""
    if listing.others:
        count = len(listing.others)
        kinds = _count(Counter(file.suffix.lower() for file in listing.others))
        raise UnreadableData(
            f"{path}: expected PNG, JPEG or WebP files, but {count} of {count + len(listing.files)} images are of "
            f"other formats ({kinds}), {listing.others[0]} for one; convert them, or move them elsewhere."
        )
    if not listing.files:
        raise UnreadableData(
            f"{path}: expected a folder for each class, with PNG, JPEG or WebP files, but there is none."
        )


def _homes(path: Path, listing: Listing) -> list[tuple[SplitName | None, Path]]:
    """The folders whose folders are classes, with the split that each is: of a set that is not divided the one."""
    splits = {folder: _SPLITS.get(folder.name.lower()) for folder in _folders(path, Listing())}
    others = [folder for folder, split in splits.items() if split is None]
    if others or not splits:
        # A class may be called like a split, too: cars, trains and planes.
        for folder in (each for each in splits if each not in others):
            if _folders(folder, Listing()) and not any(map(is_image, folder.iterdir())):
                raise UnreadableData(
                    f"{path}: expected a folder for each class, or one for each split with those inside, but "
                    f"{folder.name!r} looks like a split and {others[0].name!r} does not; move one of them elsewhere."
                )
        return [(None, path)]
    homes: dict[SplitName | None, Path] = {}
    for folder, split in splits.items():
        if split in homes:
            raise UnreadableData(
                f"{path}: expected one folder for the {split} split, but {homes[split].name!r} and {folder.name!r} "
                "both are it; make them one."
            )
        if not _folders(folder, Listing()):
            raise UnreadableData(
                f"{folder}: expected a folder for each class in the {split} split, but there is none; make them, or "
                "call the folder otherwise if it is a class."
            )
        homes[split] = folder
    _folders(path, listing)  # counts the files beside them
    return list(homes.items())


def _folders(path: Path, listing: Listing) -> list[Path]:
    """The folders in a folder; the files beside them belong to no class."""
    folders = []
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            if not entry.name.startswith("."):
                folders.append(entry)
        else:
            listing.skipped["outside the classes' folders" if is_image(entry) else _kind(entry)] += 1
    return folders


def _images(folder: Path, nested: bool, listing: Listing) -> list[Path]:
    """The images of one class."""
    images, seen = [], set()
    for home, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if os.path.realpath(home) in seen:  # a link leads back
            subfolders.clear()
            continue
        seen.add(os.path.realpath(home))
        for file in (Path(home, name) for name in sorted(names)):
            if not is_image(file):
                listing.skipped[_kind(file)] += 1
            elif not file.is_file():
                raise UnreadableData(f"{file}: expected a file, but it is none, or a link to nowhere; remove it.")
            elif file.suffix.lower() in OTHER_SUFFIXES:
                listing.others.append(file)
            else:
                images.append(file)
    deep = [image for image in images if image.parent != folder]
    if deep and not nested:
        raise UnreadableData(
            f"{folder}: expected the images of class {folder.name!r} in this folder itself, but {len(deep)} of "
            f"{len(images)} lie in folders inside it, {deep[0]} for one; set `data.init_args.nested: true` if these "
            "are of the class, too, or move them."
        )
    return images


def _kind(file: Path) -> str:
    return "hidden" if file.name.startswith(".") else file.suffix.lower() or "without a suffix"


def _count(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
