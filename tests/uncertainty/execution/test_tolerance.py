from __future__ import annotations

import math

import pytest
import torch

from dubio.uncertainty.execution.tolerance import TF32, Disagreement, agree, require_agreement, tolerance


def test_agreement_is_up_to_rounding():
    one = torch.tensor([1.0, 1000.0])
    assert agree(one, one * (1 + 1e-6))
    assert not agree(one, one * (1 + 1e-4))
    assert not agree(one * torch.nan, one)


def test_small_logits_are_held_against_one():
    zero = torch.zeros(3)
    assert agree(zero + 1e-6, zero)
    assert not agree(zero + 1e-4, zero)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_coarser_format_may_be_a_few_of_its_steps_apart(dtype):
    one = torch.ones(1, dtype=dtype)
    step = torch.finfo(dtype).eps
    assert agree(one + step, one)
    assert agree(one + 4 * step, one)
    assert not agree(one + 10 * step, one)


def test_finer_formats_are_held_to_the_same_as_single_precision():
    assert tolerance(torch.ones(1, dtype=torch.float64)) == tolerance(torch.ones(1)) == 1e-5


def test_tf32_keeps_ten_bits_behind_the_point():
    assert torch.finfo(torch.float16).eps == TF32  # which half precision does as well


@pytest.mark.parametrize("value", [-1e6, -1e30, -math.inf])
def test_a_masked_class_lets_the_others_differ_no_more(value):
    expected = torch.tensor([[1.0, -2.0, value], [value, 0.5, 3.0]])
    others = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert agree(expected.clone(), expected)
    assert agree(expected + 1e-6 * others, expected)
    assert not agree(expected + 1e-3 * others, expected)
    with pytest.raises(Disagreement, match=r"up to 0\.001 from the expected ones, the largest .* is 3$"):
        require_agreement(expected + 1e-3 * others, expected)


@pytest.mark.parametrize("value", [-1e6, -1e30, -math.inf])
def test_a_class_that_one_strategy_alone_masks_is_a_disagreement(value):
    expected = torch.tensor([[1.0, -2.0, value]])
    assert not agree(torch.tensor([[1.0, -2.0, 0.0]]), expected)
    assert not agree(expected, torch.tensor([[1.0, -2.0, 0.0]]))
