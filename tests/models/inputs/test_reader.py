from __future__ import annotations

import numpy as np
import pytest
import torch

from dubio.models import InputSpec
from dubio.models.errors import InvalidInput
from dubio.models.inputs import encoding
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table
from dubio.models.inputs.text import SPECIAL, TokenizerSpec, Tokens

COLUMNS = [
    NumericColumn(kind="numeric", name="age", low=18.0, high=90.0, fill=40.0, missing=False),
    CategoricalColumn(kind="categorical", name="colour", categories=["red", "blue"], missing=False),
]
TABLE = InputSpec(
    kind="table", shape=(4,), mean=(40.0, 0.0, 0.0, 0.0), std=(10.0, 1.0, 1.0, 1.0), low=0.0, high=90.0, columns=COLUMNS
)
TOKENIZER = TokenizerSpec(
    kind="word", vocabulary=[*SPECIAL, "book", "a", "flight"], merges=[], lowercase=True, length=5
)
TEXT = InputSpec(kind="text", shape=(5,), mean=(0.0,), std=(1.0,), low=0.0, high=4.0, tokenizer=TOKENIZER)
NUMBERS = InputSpec(kind="numbers", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0), low=0.0, high=1.0)
EXAMPLES = {"table": (TABLE, {"age": 50, "colour": "blue"}), "text": (TEXT, "Book flights")}


def test_each_kind_has_its_reader_and_numbers_need_none():
    assert isinstance(TABLE.reader, Table)
    assert isinstance(TEXT.reader, Tokens)
    assert NUMBERS.reader is None
    assert TEXT.reader is TEXT.reader  # a tokenizer is built once


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_instance_is_read_checked_and_encoded(kind: str):
    spec, instance = EXAMPLES[kind]
    raw = encoding.check(spec, [instance, spec.reader.example()])
    assert raw.shape == (2, *spec.shape)
    assert torch.equal(raw, encoding.check(spec, spec.reader.read([instance, spec.reader.example()])))
    encoded = encoding.encoder(spec)(raw)
    if kind == "table":
        assert encoded[0].tolist() == [1.0, 0.0, 1.0, 0.0]
    else:
        assert (encoded.dtype, encoded[0].tolist()) == (torch.int64, [2, 1, 0, 0, 0])
    assert not encoding.outside(spec, raw).any()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_blank_inputs_and_noise_are_inputs(kind: str):
    spec, _ = EXAMPLES[kind]
    noise = encoding.noise(spec, 50)
    assert torch.equal(encoding.check(spec, noise), noise)
    assert torch.equal(noise, encoding.noise(spec, 50))
    assert encoding.blank(spec, 3).dtype == encoding.encoder(spec)(noise).dtype
    assert encoding.blank(spec, 3).shape == (3, *spec.shape)


def test_numbers_do_not_take_texts_or_rows():
    for instances in (["a text"], [{"age": 1}]):
        with pytest.raises(InvalidInput, match="but got a list of texts or of mappings"):
            encoding.check(NUMBERS, instances)


@pytest.mark.parametrize("token", [5, -1, 0.5])
def test_what_is_no_token_is_refused(token: float):
    with pytest.raises(InvalidInput, match="tokens from 0 to 4, but input 1 has another number"):
        encoding.check(TEXT, np.array([[0, 1, 2, 3, 4], [0, 0, 0, 0, token]]))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_spec_survives_its_own_dump(kind: str):
    spec, instance = EXAMPLES[kind]
    again = InputSpec.model_validate(spec.model_dump())
    assert again == spec
    assert np.array_equal(again.reader.read([instance]), spec.reader.read([instance]))


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (TABLE, {"columns": None}, "`columns` for table input"),
        (TEXT, {"tokenizer": None}, "`tokenizer` for text input"),
        (NUMBERS, {"columns": [COLUMNS[0].model_dump()]}, "`columns` for table input and for no other"),
        (TABLE, {"shape": (3,), "mean": (0.0,) * 3, "std": (1.0,) * 3}, "the width of `columns`"),
        (TABLE, {"columns": [COLUMNS[0].model_dump()] * 4}, "every column once"),
        (TEXT, {"high": 9.0}, "the first and the last token"),
        (TEXT, {"shape": (6,)}, "the width of `tokenizer`"),
        (TABLE, {"columns": [{**COLUMNS[0].model_dump(), "kind": "date"}]}, "does not match any of the expected tags"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(spec: InputSpec, change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        InputSpec.model_validate({**spec.model_dump(), **change})
