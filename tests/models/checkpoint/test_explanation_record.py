"""Explanation records that no calibration wrote are refused in one line that names the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dubio.models import InputSpec, load
from dubio.models.checkpoint import file
from dubio.models.checkpoint.explanation_record import ExplanationRecord
from dubio.models.checkpoint.schema import KEY
from dubio.models.errors import ModelError, UnreadableCheckpoint
from dubio.models.inputs.text import SPECIAL, TokenizerSpec
from dubio.uncertainty import Calibration, Detector, DeterministicPass
from dubio.uncertainty.detection.ecdf import Ranks
from dubio.uncertainty.detection.knn import NearestNeighbours

HOSTILE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "ranks that fall": ("ranks", lambda x: x.flip(1), "ascending"),
    "ranks that are rounded": ("ranks", lambda x: x.float(), "float64"),
    "ranks that are no numbers": ("ranks", lambda x: x * float("nan"), "finite"),
    "ranks of fewer scores": ("ranks", lambda x: x[:1], r"scores and calibration rows, \[4, 150\], but got \[1, 150\]"),
    "ranks of fewer rows": ("ranks", lambda x: x[:, :9], r"but got \[4, 9\]"),
    "ranks that are none": ("ranks", lambda x: None, "`ranks`"),
    "rows below 0": ("rows", lambda x: x - 8, "every row number once"),
    "rows twice": ("rows", lambda x: x * 0, "every row number once"),
    "rows of half": ("rows", lambda x: x + 0.5, "int64"),
    "rows of another bank": ("rows", lambda x: x[:200], "the 400 training rows that are kept, but got 200"),
    "rows that are a list": ("rows", lambda x: x.tolist(), "a tensor"),
    "no rows, but examples": ("rows", lambda x: None, "not more than `rows`"),
    "examples that are large": ("examples", lambda x: x.repeat(1, 1, 9, 1), "thumbnails"),
    "examples without width": ("examples", lambda x: x[..., :0], "thumbnails"),
    "examples of two channels": ("examples", lambda x: x.repeat(1, 2, 1, 1), "thumbnails"),
    "examples of many": ("examples", lambda x: x.repeat(5, 1, 1, 1), "not more than `rows`"),
    "examples of none": ("examples", lambda x: x[:0], "at least one"),
    "examples that are numbers": ("examples", lambda x: x.float(), "thumbnails"),
    "examples that are flat": ("examples", lambda x: x.flatten(1), "thumbnails"),
}


@pytest.mark.parametrize(
    "tokens",
    [
        torch.tensor([[1, 2, 5, 0, 0]], dtype=torch.int32),
        torch.tensor([[-1, 2, 0, 0, 0]], dtype=torch.int32),
        torch.tensor([[1, 2, 0, 0]], dtype=torch.int32),
        torch.tensor([[1, 2, 0, 0, 0]]),
    ],
    ids=["unknown", "negative", "too few", "int64"],
)
def test_texts_are_tokens_of_the_model(tokens: torch.Tensor):
    vocabulary = [*SPECIAL, "book", "a", "flight"]
    words = TokenizerSpec(kind="word", vocabulary=vocabulary, merges=[], lowercase=True, length=5)
    spec = InputSpec(kind="text", shape=(5,), mean=(0.0,), std=(1.0,), low=0.0, high=4.0, tokenizer=words)
    seen = DeterministicPass(torch.eye(6), torch.eye(6), torch.eye(6))
    nearest = NearestNeighbours.fit(seen, torch.zeros(6, dtype=torch.int64), k=1)
    ranks = Ranks.fit(torch.linspace(0, 1, 20, dtype=torch.float64))
    detector = Detector((nearest,), {"neighbours": ranks}, Calibration.fit(torch.rand(9).double(), 0.5, 0.5))
    known = {"ranks": torch.linspace(0, 1, 9, dtype=torch.float64).unsqueeze(0), "rows": torch.arange(6)}
    ExplanationRecord(**known, examples=torch.tensor([[1, 2, 4, 0, 0]], dtype=torch.int32)).check(detector, spec)
    with pytest.raises(ModelError, match="tokens"):
        ExplanationRecord(**known, examples=tokens).check(detector, spec)


@pytest.mark.parametrize(("field", "spoil", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_spoiled_record_is_refused(
    edit: Callable[[Callable[[dict[str, Any]], object]], Path], field: str, spoil: Callable[[Any], Any], why: str
):
    def change(content: dict[str, Any]) -> None:
        record = content[KEY]["explanation"]
        record[field] = spoil(record[field])

    path = edit(change)
    with pytest.raises(UnreadableCheckpoint, match=why) as caught:
        load(path, strategy="chain")
    assert "explanation" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_record_may_be_absent(edit: Callable[[Callable[[dict[str, Any]], object]], Path]):
    path = edit(lambda content: content[KEY].update(explanation=None))
    assert load(path, strategy="chain").explaining is None
    assert file.explanation_record(path, file.read_content(path)) is None


def test_a_record_is_read_alone_for_another_calibration(
    edit: Callable[[Callable[[dict[str, Any]], object]], Path], saved: Path
):
    record = file.explanation_record(saved, file.read_content(saved))
    assert record is not None
    assert torch.equal(record.rows, torch.arange(400) + 7)
    path = edit(lambda content: content[KEY]["explanation"].update(rows="many"))
    with pytest.raises(UnreadableCheckpoint, match=r"dubio\.explanation\.rows"):
        file.explanation_record(path, file.read_content(path))
    with pytest.raises(UnreadableCheckpoint, match=r"dubio\.explanation\.ranks"):
        file.explanation_record(saved, {KEY: {"explanation": {"ranks": {1, 2}}}})
