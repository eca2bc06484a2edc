"""Which source a path is."""

from __future__ import annotations

from pathlib import Path

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.scale.readers.csv_file import CsvFile
from dubio.scale.readers.image_folder import ImageFolder
from dubio.scale.readers.line_file import LineFile
from dubio.scale.readers.npz_file import NpzFile
from dubio.scale.readers.parquet_file import ParquetFile
from dubio.scale.readers.rows import Reading, Source

_FILES: dict[str, type[CsvFile | LineFile | NpzFile | ParquetFile]] = {
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".jsonl": LineFile,
    ".ndjson": LineFile,
    ".txt": LineFile,
    ".npz": NpzFile,
    ".parquet": ParquetFile,
}


def open_source(path: Path, spec: InputSpec, reading: Reading) -> Source:
    """The source of a path, which fits the model.

    Args:
        path: Of a file, or of a folder of images.
        spec: What the model takes.
        reading: How it is read.

    Raises:
        InvalidInput: If it is none, cannot be read, or does not fit; the message names the path.
    """
    try:
        if path.is_dir():
            return ImageFolder(path, spec, reading)
        if not path.is_file():
            raise InvalidInput("no such file or folder.")
        kind = _FILES.get(path.suffix.lower())
        if kind is None:
            raise InvalidInput(
                f"Expected a folder of images, or a file that ends in {', '.join(_FILES)}; convert or rename it."
            )
        return kind(path, spec, reading)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}.") from error
