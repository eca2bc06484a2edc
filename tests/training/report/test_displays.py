from __future__ import annotations

import torch

from dubio.models import InputSpec
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn
from dubio.models.inputs.text import TokenizerSpec
from dubio.training.report.displays import display


def test_a_row_is_told_column_by_column():
    columns = [
        NumericColumn(kind="numeric", name="age", low=1.0, high=9.0, fill=4.0, missing=True),
        NumericColumn(kind="numeric", name="time", low=1e9, high=1e9 + 9, fill=1e9 + 1, missing=False, offset=1e9),
        CategoricalColumn(kind="categorical", name="town", categories=["Bonn", "Ulm"], missing=True),
    ]
    spec = InputSpec(kind="table", shape=(7,), mean=(0.0,) * 7, std=(1.0,) * 7, low=0.0, high=9.0, columns=columns)
    assert display(torch.tensor([2.5, 0, 3, 0, 1, 0, 0]), spec, 1) == "age: 2.5, time: 1e+09, town: Ulm"
    assert display(torch.tensor([4.0, 1, 0, 0, 0, 1, 0]), spec, 1) == "age: missing, time: 1e+09, town: missing"
    assert display(torch.tensor([4.0, 0, 0, 0, 0, 0, 1]), spec, 1).endswith("town: a category never seen")


def test_of_many_numbers_the_first_are_told():
    spec = InputSpec(kind="numbers", shape=(10,), mean=(0.0,) * 10, std=(1.0,) * 10, low=0.0, high=9.0)
    assert display(torch.arange(10.0), spec, 1) == "0, 1, 2, 3, 4, 5, 6, 7, and 2 more"


def test_a_text_is_its_words_and_an_image_its_number():
    tokenizer = TokenizerSpec(kind="word", vocabulary=["[PAD]", "[UNK]", "a", "b"], merges=[], lowercase=True, length=4)
    spec = InputSpec(kind="text", shape=(4,), mean=(0.0,), std=(1.0,), low=0.0, high=3.0, tokenizer=tokenizer)
    assert display(torch.tensor([3.0, 2, 1, 0]), spec, 1) == "b a [UNK]"
    image = InputSpec(kind="image", shape=(1, 2, 2), mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
    assert display(torch.zeros(1, 2, 2), image, 7) == "image 7"
