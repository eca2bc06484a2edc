"""Measures of uncertainty against scipy and against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import log_loss
from torch import Tensor

from dubio.uncertainty.detection import measures

LN2 = math.log(2)


def _probs(members: int, rows: int, classes: int, seed: int = 0, sharpness: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(members, rows, classes, generator=generator, dtype=torch.float64)).softmax(-1)


@pytest.mark.parametrize(
    ("members", "total", "expected", "disagreement"),
    [
        ([[0.5, 0.5]], LN2, LN2, 0.0),
        ([[1.0, 0.0], [0.0, 1.0]], LN2, 0.0, LN2),
        ([[0.3, 0.7], [0.3, 0.7]], entropy([0.3, 0.7]), entropy([0.3, 0.7]), 0.0),
        ([[1.0, 0.0], [0.5, 0.5]], entropy([0.75, 0.25]), LN2 / 2, entropy([0.75, 0.25]) - LN2 / 2),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], math.log(3), 0.0, math.log(3)),
    ],
)
def test_values_worked_out_by_hand(members, total, expected, disagreement):
    probs_KBC = torch.tensor(members, dtype=torch.float64)[:, None]
    summary = measures.summarise(probs_KBC)
    assert float(summary.predictive_entropy_B) == pytest.approx(total, abs=1e-12)
    assert float(summary.expected_entropy_B) == pytest.approx(expected, abs=1e-12)
    assert float(summary.mutual_information_B) == pytest.approx(disagreement, abs=1e-12)


def test_mutual_information_of_a_mixed_batch_is_half_a_bit_on_average():
    opposed, equal = [[1.0, 0.0], [0.0, 1.0]], [[0.4, 0.6], [0.4, 0.6]]
    probs_KBC = torch.tensor([[opposed[0], equal[0]], [opposed[1], equal[1]]], dtype=torch.float64)
    assert float(measures.summarise(probs_KBC).mutual_information_B.mean()) == pytest.approx(LN2 / 2)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_entropies_are_scipys(classes):
    probs_KBC = _probs(7, 20, classes)
    array = probs_KBC.numpy()
    total, expected = entropy(array.mean(0), axis=-1), entropy(array, axis=-1).mean(0)
    summary = measures.summarise(probs_KBC)
    np.testing.assert_allclose(summary.predictive_entropy_B, total, rtol=1e-12)
    np.testing.assert_allclose(summary.expected_entropy_B, expected, rtol=1e-12)
    np.testing.assert_allclose(summary.mutual_information_B, total - expected, rtol=1e-9)


def test_mutual_information_is_the_mean_divergence_from_the_mean():
    probs_KBC = _probs(5, 9, 4)
    divergences = entropy(probs_KBC.numpy(), probs_KBC.mean(0, keepdim=True).numpy(), axis=-1).mean(0)
    np.testing.assert_allclose(measures.summarise(probs_KBC).mutual_information_B, divergences, rtol=1e-9)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.integers(0, 999), st.sampled_from([0.0, 1e-4, 1.0, 30.0, 1000.0]))
def test_total_is_the_sum_of_its_parts_and_all_keep_their_bounds(members, classes, seed, sharpness):
    probs_KBC = _probs(members, 6, classes, seed, sharpness).float()
    summary = measures.summarise(probs_KBC)
    total, expected = summary.predictive_entropy_B, summary.expected_entropy_B
    torch.testing.assert_close(total, expected + summary.mutual_information_B, rtol=1e-5, atol=1e-6)
    assert bool((summary.mutual_information_B >= 0).all())
    assert bool((expected >= 0).all())
    assert bool((total <= math.log(classes) + 1e-6).all())
    torch.testing.assert_close(summary.mean_BC.sum(-1), torch.ones(6))


def test_mean_and_deviation_are_numpys():
    probs_KBC = _probs(6, 8, 5)
    summary = measures.summarise(probs_KBC)
    np.testing.assert_allclose(summary.mean_BC, probs_KBC.numpy().mean(0))
    np.testing.assert_allclose(summary.std_BC, probs_KBC.numpy().std(0))


def test_standard_deviation_divides_by_the_number_of_members():
    probs_KBC = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])
    assert measures.summarise(probs_KBC).std_BC[0].tolist() == pytest.approx([math.sqrt(2) / 3] * 2)
    assert measures.summarise(probs_KBC[:1]).std_BC.tolist() == [[0.0, 0.0]]


def test_no_rows_give_no_numbers():
    assert {tuple(value.shape) for value in vars(measures.summarise(torch.zeros(4, 0, 3))).values()} == {(0, 3), (0,)}


@pytest.mark.parametrize("members", [1, 7])
def test_what_the_members_say_together_and_its_likelihood_are_scipys(members):
    generator = torch.Generator().manual_seed(members)
    logits_KBC = 4 * torch.randn(members, 20, 5, generator=generator)
    labels_B = torch.randint(5, (20,), generator=generator)
    probs_BC = scipy.special.softmax(logits_KBC.double().numpy(), axis=-1).mean(0)
    log_mean_BC = measures.log_mean_softmax(logits_KBC)
    np.testing.assert_allclose(log_mean_BC, np.log(probs_BC), rtol=1e-10)
    nll_B = measures.negative_log_likelihood(log_mean_BC, labels_B)
    assert float(nll_B.mean()) == pytest.approx(log_loss(labels_B.numpy(), probs_BC, labels=range(5)), rel=1e-10)


def test_a_class_that_every_member_rules_out_keeps_its_likelihood():
    logits_KBC = torch.tensor([[[2000.0, 0.0]], [[3000.0, 0.0]]])
    log_mean_BC = measures.log_mean_softmax(logits_KBC)
    assert log_mean_BC[0].tolist() == pytest.approx([0.0, -2000 - LN2])
    assert measures.negative_log_likelihood(log_mean_BC, torch.tensor([1])).tolist() == pytest.approx([2000 + LN2])


@pytest.mark.parametrize("sizes", [(5,), (4, 4), (2, 7, 3)])
def test_groups_pooled_by_their_sizes_are_all_members_at_once(sizes):
    groups = [_probs(size, 9, 4, seed=size) for size in sizes]
    expected = vars(measures.summarise(torch.cat(groups)))
    for name, value in vars(measures.pool([measures.summarise(group) for group in groups], sizes)).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12, msg=name)


def test_softmax_is_torchs_whatever_its_layout():
    logits = 50 * torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(measures.softmax(logits), logits.softmax(-1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_are_measured_in_single(dtype):
    generator = torch.Generator().manual_seed(0)
    logits_KBC = (torch.randn(500, 10, generator=generator) + 0.3 * torch.randn(64, 500, 10, generator=generator)).to(
        dtype
    )
    summary = measures.summarise(measures.softmax(logits_KBC))
    probs_KBC = scipy.special.softmax(logits_KBC.double().numpy(), axis=-1)
    total_B, expected_B = entropy(probs_KBC.mean(0), axis=-1), entropy(probs_KBC, axis=-1).mean(0)
    for measured, due in (
        (summary.mean_BC, probs_KBC.mean(0)),
        (summary.std_BC, probs_KBC.std(0)),
        (summary.predictive_entropy_B, total_B),
        (summary.expected_entropy_B, expected_B),
        (summary.mutual_information_B, total_B - expected_B),
    ):
        assert measured.dtype == torch.float32
        np.testing.assert_allclose(measured.numpy(), due, atol=2e-6)
    assert len(summary.mutual_information_B.unique()) > 490
    assert measures.summarise(measures.softmax(logits_KBC).to(dtype)).mutual_information_B.dtype == torch.float32


@pytest.mark.parametrize(("members", "classes"), [(2, 2), (8, 10), (100, 10), (101, 3), (64, 150)])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_rows_measures_have_the_same_bits_in_every_batch(members: int, classes: int, threads: int) -> None:
    logits_KBC = 3 * torch.randn(members, 65, classes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [vars(measures.summarise(measures.softmax(logits_KBC[:, row : row + 1]))) for row in range(65)]
        for rows in (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65):
            for name, measure in vars(measures.summarise(measures.softmax(logits_KBC[:, -rows:]))).items():
                assert torch.equal(measure, torch.cat([each[name] for each in alone[-rows:]])), (name, rows)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 4096])
def test_a_total_is_the_exact_sum_up_to_rounding(count: int) -> None:
    x = torch.randn(count, 3)
    before = x.clone()
    exact = [math.fsum(column) for column in x.T.tolist()]
    bound = 2**-24 * math.ceil(math.log2(count) + 1) * x.abs().sum(0).double()
    assert ((measures.total(x).double() - torch.tensor(exact, dtype=torch.float64)).abs() <= bound).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 5, 6, 7, 9, 10, 15, 16, 17, 100])
def test_a_row_of_a_product_has_the_same_bits_wherever_it_stands(columns: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(columns)
    for features in (columns, 37, 128):
        matrix_FG = torch.randn(features, columns, generator=generator, dtype=dtype)
        row_F = torch.randn(features, generator=generator, dtype=dtype)
        found = set()
        for rows, place in [(1, 0), (3, 2), *((16, place) for place in range(16)), (65, 33)]:
            rows_BF = torch.randn(rows, features, generator=generator, dtype=dtype)
            rows_BF[place] = row_F
            found.add(measures.product(rows_BF, matrix_FG)[place].numpy().tobytes())
        assert len(found) == 1
        torch.testing.assert_close(measures.product(row_F[None], matrix_FG), row_F[None] @ matrix_FG)
