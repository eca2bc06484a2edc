"""One state for all workers, and files that are torn, foreign or cannot be written."""

from __future__ import annotations

import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from dubio.serving.errors import InvalidState, UnusableFolder
from dubio.serving.states import FolderStates, MemoryStates


@dataclass(frozen=True)
class Words:
    """A state: what was said, in its order."""

    said: tuple[str, ...] = ()

    def say(self, word: str) -> Words:
        return Words((*self.said, word))

    def dump(self) -> bytes:
        return ("words: " + " ".join(self.said)).encode()


@dataclass(frozen=True)
class Speaker:
    """Its slot."""

    name: str

    @property
    def file(self) -> str:
        return f"{self.name}.txt"

    def begin(self) -> Words:
        return Words()

    def load(self, text: bytes) -> Words:
        head, _, rest = text.partition(b": ")
        if head != b"words":
            raise InvalidState("it begins otherwise")
        return Words(tuple(rest.decode().split()))


ANNA, BERT = Speaker("anna"), Speaker("bert")


def test_those_who_share_a_folder_share_the_states(tmp_path: Path) -> None:
    for first, second in ([FolderStates(tmp_path / "new" / "states") for _ in range(2)], [MemoryStates()] * 2):
        assert first.change(ANNA, lambda words: words.say("one")) == (Words(), Words(("one",)))
        assert second.change(ANNA, lambda words: words.say("two")) == (Words(("one",)), Words(("one", "two")))
        first.change(Speaker("bert"), lambda words: words.say("three"))
        assert [each.read(Speaker("anna")) for each in (first, second)] == [Words(("one", "two"))] * 2
        assert second.read(BERT) == Words(("three",))
    assert FolderStates(tmp_path / "new" / "states").read(ANNA) == Words(("one", "two"))
    assert MemoryStates().read(ANNA) == Words()


@pytest.mark.parametrize("shared", [False, True])
def test_nothing_is_lost_of_those_who_write_at_once(tmp_path: Path, shared: bool) -> None:
    memory, interval = MemoryStates(), sys.getswitchinterval()

    def work(number: int) -> None:
        states = FolderStates(tmp_path) if shared else memory
        for _ in range(25):
            states.change(ANNA, lambda words: words.say(str(number)))

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)
    said = (FolderStates(tmp_path) if shared else memory).read(ANNA).said
    assert sorted(said) == sorted(str(number) for number in range(4) for _ in range(25))


@pytest.mark.parametrize("text", [b"", b"wor", b"\x00" * 100_000, b"words: " + b"w" * 100_000, b'{"jobs": []}'])
def test_a_file_that_is_torn_or_foreign_is_told_once_and_begun_anew(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    states = FolderStates(tmp_path)
    states.change(ANNA, lambda words: words.say("one"))
    (tmp_path / "anna.txt").write_bytes(text)
    with caplog.at_level(logging.WARNING, "dubio"):
        assert states.read(ANNA) == states.read(ANNA) == Words()
    assert [str(tmp_path / "anna.txt") in record.getMessage() for record in caplog.records] == [True]
    states.change(ANNA, lambda words: words.say("two"))
    assert FolderStates(tmp_path).read(ANNA) == Words(("two",))


def test_what_fails_to_change_stays(tmp_path: Path) -> None:
    states = FolderStates(tmp_path)
    states.change(ANNA, lambda words: words.say("one"))
    (tmp_path / "anna.new").write_bytes(b"words: of one who was killed meanwhile")
    with pytest.raises(ZeroDivisionError):
        states.change(ANNA, lambda words: words.say(str(1 / 0)))
    assert states.change(ANNA, lambda words: words.say("two"))[1] == Words(("one", "two"))  # nor is the lock kept


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnusableFolder, match="state_folder"):
        FolderStates(tmp_path / "file" / "states")
    states = FolderStates(tmp_path / "states")
    shutil.rmtree(tmp_path / "states")
    with pytest.raises(UnusableFolder, match="states"):
        states.change(ANNA, lambda words: words)
    (tmp_path / "states").touch()
    with pytest.raises(UnusableFolder, match="states"):
        states.read(ANNA)
