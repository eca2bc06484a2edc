from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dubio.models.inputs.text import Tokens
from dubio.training import CLINC150
from dubio.training.errors import DataUnavailable, UnreadableData

INTENTS = ("book", "pay")
CONTENT = {
    "train": [[f"{intent} the train {number}", intent] for intent in INTENTS for number in range(10)],
    "val": [[f"validated {intent} {number}", intent] for intent in INTENTS for number in range(20)],
    "test": [[f"please {intent} it {number}", intent] for intent in INTENTS for number in range(4)],
    "oos_test": [["how tall is it", "oos"], ["the train", "oos"]],
}


def written(folder: Path, **changes: object) -> str:
    path = folder / "data_full.json"
    path.write_text(json.dumps({**CONTENT, **changes}))
    return str(path)


def test_official_parts_stay_what_they_are_and_the_validation_part_is_divided(tmp_path: Path):
    data = CLINC150(written(tmp_path), validation=10, select=12)
    assert data.classes == INTENTS
    sizes = {name: len(data.raw(name)[0]) for name in data.splits}
    assert sizes == {"train": 20, "validation": 10, "select": 12, "calibration": 18, "test": 8}
    for name in ("train", "test"):
        texts = [text for text, _ in CONTENT[name]]
        tokenizer = data.input.tokenizer
        assert tokenizer is not None
        assert torch.equal(data.raw(name)[0], torch.from_numpy(Tokens(tokenizer).read(texts)))
        assert data.raw(name)[1].tolist() == [INTENTS.index(label) for _, label in CONTENT[name]]
    assert "validated" not in data.input.tokenizer.vocabulary  # type: ignore[union-attr]


def test_out_of_scope_questions_are_like_no_training_data(tmp_path: Path):
    (others,) = CLINC150(written(tmp_path), validation=10, select=12).out_of_distribution().values()
    assert others.shape == (2, 32)
    assert (others[0, :4] == 1).all()  # none of these words is in a training question
    assert (others[1, :2] > 1).all()


def test_a_missing_file_and_a_strange_one_are_told(tmp_path: Path):
    with pytest.raises(DataUnavailable, match=r"data\.init_args\.path"):
        _ = CLINC150(str(tmp_path / "none.json")).splits
    with pytest.raises(UnreadableData, match="'sing' of `test`"):
        _ = CLINC150(written(tmp_path, test=[["la", "sing"]]), validation=10, select=12).splits
    for broken in (["text"], 3, [["a", "b", "c"]]):
        with pytest.raises(UnreadableData, match="pairs of question and intent"):
            _ = CLINC150(written(tmp_path, val=broken)).splits
