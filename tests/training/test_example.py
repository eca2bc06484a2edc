from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dubio.models import InputSpec, Predictor, load
from dubio.models.checkpoint.explanation_record import Example
from dubio.models.errors import ModelError
from dubio.models.inputs import encoding
from dubio.models.inputs.tabular import CategoricalColumn, NumericColumn, Table, width
from dubio.models.inputs.text import SPECIAL, TokenizerSpec
from dubio.training import example
from dubio.training.data.digits import Digits

COLUMNS = [
    NumericColumn(kind="numeric", name="age", low=18, high=90, fill=40, missing=False),
    NumericColumn(kind="numeric", name="income", low=0, high=9000, fill=2500, missing=True),
    NumericColumn(kind="numeric", name="time", low=1.7e12, high=1.8e12, fill=1.75e12, missing=False, offset=1.75e12),
    CategoricalColumn(kind="categorical", name="city", categories=["Bern", "Köln"], missing=True),
]
TABLE = InputSpec(
    kind="table", shape=(width(COLUMNS),), mean=(0.0,) * 8, std=(1.0,) * 8, low=-1e12, high=1e12, columns=COLUMNS
)
WORDS = TokenizerSpec(kind="word", vocabulary=[*SPECIAL, "book", "a", "flight"], merges=[], lowercase=True, length=5)
TEXT = InputSpec(kind="text", shape=(5,), mean=(0.0,), std=(1.0,), low=0, high=4, tokenizer=WORDS)


@pytest.mark.parametrize(
    "row",
    [
        {"age": 41, "income": 2500.25, "time": 1750000000123.0, "city": "Köln"},
        {"age": 18.3, "income": None, "time": 1749999000000.0, "city": None},
    ],
)
def test_a_row_is_read_as_it_was_written(row: dict) -> None:
    raw = encoding.check(TABLE, [row])[0]
    assert encoding.decode(TABLE, raw) == row


def test_a_text_is_read_as_it_was_written() -> None:
    raw = encoding.check(TEXT, ["Book a flight"])[0]
    assert encoding.decode(TEXT, raw) == "book a flight"


def test_the_middle_of_a_class_is_that_of_each_column_and_no_row() -> None:
    rows = [{"age": age, "income": None, "time": 1.75e12, "city": "Bern"} for age in range(20, 31)]
    rows += [{"age": 60, "income": 100.0 * age, "time": 1.75e12, "city": "Köln"} for age in range(10)]
    x = torch.from_numpy(Table(COLUMNS).read([*rows, *rows[:5]]))
    labels = torch.tensor([1] * 21 + [0] * 5)  # five rows are too few to hide one
    middles, found = example._middles(x, labels, TABLE)
    assert found.tolist() == [1]
    assert encoding.decode(TABLE, middles[0]) == {"age": 30, "income": 400, "time": 1.75e12, "city": "Bern"}


def test_of_texts_there_is_no_middle() -> None:
    middles, labels = example._middles(torch.ones(40, 5), torch.zeros(40, dtype=torch.int64), TEXT)
    assert len(middles) == len(labels) == 0


@pytest.fixture(scope="module")
def predictor(runs: Path) -> Predictor:
    return load(runs / "digits_mlp" / "model.ckpt")


@pytest.fixture(scope="module", params=[True, False], ids=["held out", "typical"])
def kept(request: pytest.FixtureRequest, predictor: Predictor, digits: Digits) -> tuple[Predictor, bool]:
    return example.keep(predictor, digits, request.param), request.param


def test_the_example_is_familiar_and_answered_right(kept: tuple[Predictor, bool], digits: Digits) -> None:
    known, held_out = kept
    instance, source = known.example
    assert source == ("held_out" if held_out else "typical")
    raw = torch.tensor(instance).view(1, *known.input.shape)
    answer = known.predict(raw)
    assert answer.flagged is not None
    assert not answer.flagged[0]
    assert answer.label[0] == answer.mc_label[0]
    rows, labels = digits.raw("select")
    same = (rows == raw).flatten(1).all(1)
    assert bool(same.any()) == held_out
    if held_out:
        assert int(labels[same][0]) == answer.label[0]
        trained = digits.raw("train")[0]
        assert not (trained == raw).flatten(1).all(1).any()


def test_a_fit_keeps_an_example_and_what_was_measured(predictor: Predictor, digits: Digits) -> None:
    assert predictor.example[1] == "held_out"
    x, labels = digits.raw("test")
    answer, measured = predictor.predict(x), predictor.describe()["provenance"]["measured"]
    assert answer.flagged is not None
    assert measured["rows"] == len(x)
    assert measured["accuracy"] == pytest.approx((answer.label == labels.numpy()).mean())
    assert measured["mc_accuracy"] == pytest.approx((answer.mc_label == labels.numpy()).mean())
    # Two loads may choose strategies that differ by rounding.
    assert measured["flagged"] == pytest.approx(answer.flagged.mean(), abs=1.5 / len(answer.flagged))


def test_what_nobody_recognises_is_no_example(predictor: Predictor, digits: Digits) -> None:
    rows, labels = digits.raw("select")
    wrong = torch.from_numpy(predictor.predict(rows).label + 1) % 10
    assert example.choose(predictor, rows, wrong) is None
    assert example.choose(predictor, rows[:0], labels[:0]) is None
    noise = encoding.noise(predictor.input, 20)
    assert example.choose(predictor, noise, torch.from_numpy(predictor.predict(noise).label)) is None


def test_without_one_it_is_made_up_as_before(predictor: Predictor) -> None:
    plain = replace(predictor, explaining=None)
    assert plain.example == (encoding.example(plain.input), "made_up")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (torch.zeros(8, dtype=torch.float64), "float32"),
        (torch.zeros(7), r"\[8\], but got torch.float32 \[7\]"),
        (torch.full((8,), float("nan")), "finite"),
        ([0.0] * 8, "got list"),
    ],
)
def test_an_example_of_another_model_is_refused(raw: Tensor, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Example(raw=raw, source="held_out").check(TABLE)


@pytest.mark.parametrize("raw", [torch.tensor([0, 1, 2, 5.0, 0]), torch.tensor([0, 1, 0.5, 0, 0])])
def test_an_example_of_other_tokens_is_refused(raw: Tensor) -> None:
    with pytest.raises(ModelError, match="tokens"):
        Example(raw=raw, source="held_out").check(TEXT)
