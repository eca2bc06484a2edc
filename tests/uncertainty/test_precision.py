"""Networks of every precision give a committee's moments, as exact as single precision is."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from dubio.uncertainty.detection.measures import single
from dubio.uncertainty.precision import keeps_single, without_tf32
from tests.quick import quick_committee


@pytest.mark.parametrize(
    ("given", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.float32),
    ],
)
def test_numbers_are_widened_and_never_narrowed(given, wide):
    x = torch.arange(5).to(given)
    assert single(x).dtype == wide
    assert torch.equal(single(x), x.to(wide))
    assert (single(x) is x) == (given == wide)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moments_are_those_of_the_members_logits_and_no_coarser(dtype):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3)).to(dtype).eval()
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    committee = quick_committee(network, x[:1], 64)
    logits_KBC, moments = committee(x), committee.predictive_moments(x)
    assert logits_KBC.dtype == dtype
    probs_KBC = softmax(logits_KBC.double().numpy(), axis=-1)
    np.testing.assert_allclose(moments.mean.numpy(), probs_KBC.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.std.numpy(), probs_KBC.std(0), atol=1e-6)
    assert len(moments.std[:, 0].unique()) > 195


@pytest.mark.parametrize("fails", [False, True])
def test_tf32_is_refused_for_a_while(fails):
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with contextlib.suppress(ZeroDivisionError), without_tf32():
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
            if fails:
                _ = 1 / 0
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.parametrize(("said", "kept"), [("highest", True), ("high", False), ("medium", False)])
def test_whether_products_keep_single_precision_is_as_torch_was_told(said, kept):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(said)
    try:
        assert keeps_single(torch.device("cpu")) == kept
    finally:
        torch.set_float32_matmul_precision(before)


def test_on_a_gpu_products_are_not_relied_upon():
    assert not keeps_single(torch.device("cuda"))
