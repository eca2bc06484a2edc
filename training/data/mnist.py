"""MNIST and Fashion-MNIST: four IDX files with 70000 grey images, 28 x 28 pixels, in ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pooch

from dubio.training import options
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import DataUnavailable, TrainingError, UnreadableData
from dubio.training.readers import idx
from dubio.training.splits.dataset import Dataset, Examples
from dubio.training.splits.random_splits import SplitName, split


class MNISTFiles(TensorDataModule):
    """Images as `[1, 28, 28]` with pixels from 0 to 255.

    The official 10000 test images are the test split; the 60000 training images become the other four. A subclass says
    where the files are from.

    Args:
        root: Folder with the four IDX files, gzipped or not. Without it, the usual folders are looked through.
        download: Fetch the files (checksums verified) when they are not found.
        validation: Images that choose the best checkpoint.
        select: Images that fit the temperature and rank the scores.
        calibration: Images that set the threshold of the flag.
        source: Address of the folder to download from.
    """

    public = True
    names: ClassVar[tuple[str, ...]]  # of the classes
    checksums: ClassVar[dict[str, str]]  # SHA-256 of the four files as their authors published them
    published: ClassVar[str]  # where from
    folder_name: ClassVar[str]  # in the cache of downloads
    debian: ClassVar[Path | None] = None  # where a package puts them
    hint: ClassVar[str] = ""  # how to get that package

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        validation: int = 5000,
        select: int = 5000,
        calibration: int = 5000,
        source: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser() if root is not None else None
        self.download = download
        self.sizes: dict[SplitName, int] = {"validation": validation, "select": select, "calibration": calibration}
        self.source = source or self.published

    @property
    def cache(self) -> Path:
        """Where a download goes."""
        return self.root or Path(pooch.os_cache("dubio")) / self.folder_name

    def prepare_data(self) -> None:
        """Downloads the files if that is allowed and needed. Lightning calls this in one process only."""
        if self.download and self._files() is None:
            for name, checksum in self.checksums.items():
                fetch(self.source.rstrip("/") + "/" + name, checksum, self.cache)

    def read(self) -> Dataset:
        self.prepare_data()
        files = self._files()
        if files is None:
            raise DataUnavailable(
                f"{self.title} was not found in {self.root or ' or '.join(map(str, self._usual))}. Either set "
                f"{options.named('root')} to the folder that holds its four IDX files{self.hint}, or set "
                "`--data.download true` (`download: true` in a configuration)."
            )
        pool, test = (
            _read_pair(files[f"{half}-images-idx3-ubyte.gz"], files[f"{half}-labels-idx1-ubyte.gz"])
            for half in ("train", "t10k")
        )
        train = len(pool.labels) - sum(self.sizes.values())
        if train <= 0:
            raise TrainingError(
                f"Expected `validation`, `select` and `calibration` together to leave images for training, but "
                f"they take {sum(self.sizes.values())} of {len(pool.labels)}."
            )
        parts = split(pool.labels, {"train": train, **self.sizes}, self.seed, self.names)
        splits = {**pool.divide(parts), "test": test}
        parts["test"] = len(pool.labels) + np.arange(len(test.labels))
        return Dataset.of_numbers(splits, self.names, parts=parts)

    def settings(self) -> dict[str, Any]:
        return super().settings() | dict(self.sizes.items())

    @property
    def _usual(self) -> list[Path]:
        return [*([self.debian] if self.debian is not None else []), self.cache]

    def _files(self) -> dict[str, Path] | None:
        """The four files, gzipped or plain, of the first folder that has them all."""
        for folder in [self.root] if self.root is not None else self._usual:
            candidates = {name: (folder / name, folder / name.removesuffix(".gz")) for name in self.checksums}
            files = {name: path for name, paths in candidates.items() for path in reversed(paths) if path.is_file()}
            if len(files) == len(self.checksums):
                return files
        return None


def fetch(address: str, checksum: str, folder: Path) -> Path:
    """Downloads one file and keeps it only if its SHA-256 is `checksum`.

    Raises:
        DataUnavailable: If the file cannot be fetched, or is not the file that was published.
    """
    name = address.rsplit("/", 1)[-1]
    try:
        path = pooch.retrieve(address, f"sha256:{checksum}", fname=name, path=folder, progressbar=False)
    except (OSError, ValueError) as error:
        raise DataUnavailable(
            f"{address} could not be downloaded: {error} Try again, or put the file there yourself: {folder / name}."
        ) from error
    return Path(path)


def _read_pair(images_path: Path, labels_path: Path) -> Examples:
    """Images `[N, 1, 28, 28]` and labels `[N]` of one half of the data set."""
    images, labels = idx.read(images_path, dimensions=3), idx.read(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        raise UnreadableData(f"{images_path}: expected images of 28 x 28 pixels, but got {images.shape[1:]}.")
    if len(images) != len(labels):
        raise UnreadableData(f"{labels_path}: expected {len(images)} labels, one an image, but got {len(labels)}.")
    if labels.size and labels.max() > 9:
        raise UnreadableData(f"{labels_path}: expected labels from 0 to 9, but got {labels.max()}.")
    return Examples(images[:, np.newaxis], labels.astype(np.int64))


class FashionMNIST(MNISTFiles):
    """The ten kinds of clothes, as `[1, 28, 28]` images with pixels from 0 to 255.

    Without `root`, the folder of Debian's package `dataset-fashion-mnist` is used, else the cache of an earlier
    download (30 MB).
    """

    title = "Fashion-MNIST"
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    checksums: ClassVar = {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    published = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
    folder_name = "fashion-mnist"
    debian = Path("/usr/share/datasets/fashion-mnist")
    hint = ", or install Debian's package with `apt install dataset-fashion-mnist`"


class MNIST(MNISTFiles):
    """The ten digits, as `[1, 28, 28]` images with pixels from 0 to 255.

    Without `root`, the cache of an earlier download (11 MB) is used.
    """

    title = "MNIST"
    names = tuple(str(digit) for digit in range(10))
    checksums: ClassVar = {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }
    published = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    folder_name = "mnist"
