from __future__ import annotations

import math

import pytest
import torch

from dubio.models.networks import sequences
from dubio.models.networks.sequences import InputEmbedding


def test_rows_of_an_image_are_steps_and_all_are_there():
    x = torch.randn(2, 3, 4, 5)
    rows, present = InputEmbedding(5)(x)
    assert torch.equal(rows, x.reshape(2, 12, 5))
    assert present is None


def test_a_row_is_padding_only_where_all_its_numbers_are():
    x = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    assert InputEmbedding(2, padding=0.0)(x)[1].tolist() == [[True, False, True, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int32])
def test_tokens_are_looked_up_whatever_their_type_and_unknown_ones_are_the_nearest(dtype: torch.dtype):
    module = InputEmbedding(3, vocabulary=4, padding=0)
    found, present = module(torch.tensor([[0, 2, 3], [-7, 9, 1]], dtype=dtype))
    table = module.table.weight
    assert torch.equal(found, table[torch.tensor([[0, 2, 3], [0, 3, 1]])])
    assert present.tolist() == [[False, True, True], [True, True, True]]


def test_the_mean_leaves_padding_out_and_of_nothing_is_zero():
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [6.0], [7.0]], [[1.0], [1.0], [1.0]]])
    present = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    assert sequences.masked_mean(x, present).tolist() == [[2.0], [6.0], [0.0]]
    torch.testing.assert_close(sequences.masked_mean(x, None), x.mean(1))


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_positions_are_those_of_the_paper(width: int):
    found = sequences.sinusoidal_positions(5, width)
    for position in range(5):
        for index in range(width):
            angle = position / 10_000 ** (2 * (index // 2) / width)
            due = math.sin(angle) if index % 2 == 0 else math.cos(angle)
            assert float(found[position, index]) == pytest.approx(due, abs=1e-6)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="features"):
        InputEmbedding(0)
    with pytest.raises(ValueError, match="`vocabulary` to be a number of tokens, or 0"):
        InputEmbedding(2, vocabulary=-1)
