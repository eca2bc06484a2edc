"""Damage: that it is what it is said to be, and stays within what an input may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dubio.models.inputs import encoding
from dubio.training import Digits, Table
from dubio.training.report.corruptions import corruptions


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_damaged_images_are_inputs_still_and_the_same_each_time(digits: Digits, severity: int):
    x, _ = digits.raw("test")
    for corrupt in corruptions(digits.input).values():
        once, again = (corrupt(x, severity, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(once, again)
        assert not torch.equal(once, x)
        assert torch.equal(encoding.check(digits.input, once), once)
        assert float(once.min()) >= digits.input.low
        assert float(once.max()) <= digits.input.high


def test_noise_has_the_size_it_is_said_to_have(digits: Digits):
    grey = torch.full((200, 1, 8, 8), 8.0)
    noisy = corruptions(digits.input)["noise"](grey, 1, torch.Generator().manual_seed(0))
    assert float((noisy - 8).std()) == pytest.approx(0.05 * 16, rel=0.05)


def test_a_shift_moves_and_a_blur_is_a_mean(digits: Digits):
    x, _ = digits.raw("test")
    moved = corruptions(digits.input)["shift"](x, 2, torch.Generator())
    assert torch.equal(moved[:, :, 2:, 2:], x[:, :, :-2, :-2])
    assert float(moved[:, :, :2].max()) == float(moved[:, :, :, :2].max()) == digits.input.low
    blurred = corruptions(digits.input)["blur"](x, 1, torch.Generator())
    torch.testing.assert_close(blurred[:, 0, 3, 4], x[:, 0, 2:5, 3:6].mean((1, 2)))


def test_missing_columns_are_what_stands_for_a_missing_value(table: Table):
    x, _ = table.raw("test")
    columns = {column.name: column for column in table.input.columns}
    gone = corruptions(table.input)["missing columns"](x, 3, torch.Generator().manual_seed(0))
    assert [*columns] == ["age", "town"]
    changed = (gone != x).any(1)
    assert 0.5 < float(changed.float().mean()) < 1
    ages = gone[:, 1] == 1
    assert (gone[ages, 0] == columns["age"].fill - columns["age"].offset).all()
    assert (gone[:, 2:].sum(1) == 1).all()  # one category each: Bonn, Ulm, or never seen
    assert 0.3 < float(gone[:, -1].mean()) < 0.7
    noisy = corruptions(table.input)["noise"](x, 1, torch.Generator().manual_seed(0))
    assert torch.equal(noisy[:, 1:], x[:, 1:])  # whether something is the case has no noise
    assert float((noisy - x)[:, 0].std()) == pytest.approx(0.1 * table.input.std[0], rel=0.4)


def test_dropped_words_are_unknown_and_none_are_added(tmp_path: Path):
    from dubio.models import InputSpec
    from dubio.models.inputs.text import TokenizerSpec

    tokenizer = TokenizerSpec(kind="word", vocabulary=["[PAD]", "[UNK]", "a", "b"], merges=[], lowercase=True, length=6)
    spec = InputSpec(kind="text", shape=(6,), mean=(0.0,), std=(1.0,), low=0.0, high=3.0, tokenizer=tokenizer)
    x = torch.tensor([[2.0, 3, 2, 3, 0, 0]]).repeat(500, 1)
    dropped = corruptions(spec)["dropped words"](x, 2, torch.Generator().manual_seed(0))
    assert (dropped[:, 4:] == 0).all()
    changed = dropped != x
    assert (dropped[changed] == 1).all()
    assert float(changed[:, :4].float().mean()) == pytest.approx(0.25, abs=0.04)
