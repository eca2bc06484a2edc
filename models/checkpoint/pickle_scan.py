"""Archives: what a checkpoint file is made of, looked at before anything in it is built.

``torch.load(weights_only=True)`` runs no code that a file names, but it inflates compressed entries, and among what
it may call are ``bytearray(n)`` and codecs that double their input: a tiny file could fill the memory.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from collections import Counter
from pathlib import Path

from dubio.models.errors import UnreadableCheckpoint

MAX_PICKLE = 16 * 2**20  # bytes; a thousand tensors take a tenth of a megabyte
# What plain data and dense tensors are pickled with.
ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|(builtins|__builtin__) (set|complex)"
    r"|torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool|complex\d+)"
    r"|torch\._utils _rebuild_(tensor_v2|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter Parameter"
)


def check(path: str | Path) -> None:
    """Refuse a file that ``torch.save`` did not write, or that names anything but plain data and tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableCheckpoint: Names what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist())
            (entry,) = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            _check_names(path, archive.read(entry))
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UnreadableCheckpoint | FileNotFoundError):
            raise
        raise UnreadableCheckpoint(
            path, f"is not a checkpoint that torch.save wrote, or it is damaged: {error}"
        ) from error


def _check_entries(path: str | Path, entries: list[zipfile.ZipInfo]) -> None:
    counts = Counter(entry.filename for entry in entries)
    pickles = [entry.file_size for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or max(counts.values()) > 1:
        raise UnreadableCheckpoint(path, "should hold every entry once, and one of them named data.pkl.")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise UnreadableCheckpoint(path, "has compressed entries, which torch.save never writes.")
    if pickles[0] > MAX_PICKLE:
        raise UnreadableCheckpoint(
            path, f"describes its content in {pickles[0]} bytes, but at most {MAX_PICKLE} are allowed."
        )


def _check_names(path: str | Path, pickled: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.code == pickle.GLOBAL.decode() and not ALLOWED.fullmatch(str(argument)):
            name = ascii(str(argument).replace(" ", "."))[1:-1][:200]
            raise UnreadableCheckpoint(
                path,
                f"names `{name}`, which is neither plain data nor a dense tensor; nothing was run. Save the checkpoint "
                "without that object.",
            )
